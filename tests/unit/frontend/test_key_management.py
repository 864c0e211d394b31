"""Keys are made, rotated and revoked: by whom, with what at most, and what the audit log says of it. And /v1/admin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.api_keys import ApiKey, AuditEntry
from frontend.domain.errors import Forbidden, InvalidRequest, NotFound, ServiceError, Unauthenticated
from frontend.domain.limits import MOST, Limits
from frontend.domain.principal import Principal, Scope
from frontend.services.keys.authentication import ApiKeyService
from frontend.services.keys.management import USUAL_SCOPES, KeyService, Minted, NewKey
from frontend.services.keys.minter import Minter
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.database import contents
from tests.support.records import EVERYTHING, NOW

PEPPER = b"p" * 32
DAY_S = 24 * 3600
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "tenant"),
    ({"tenant": "A"}, "tenant"),
    ({"tenant": "a", "scopes": []}, "scopes"),
    ({"tenant": "a", "scopes": ["root"]}, "scopes[0]"),
    ({"tenant": "a", "limits": {"concurrency": 0}}, "limits.concurrency"),
    ({"tenant": "a", "limits": {"rpm": 1}}, "limits.rpm"),
    ({"tenant": "a", "expires_in_s": 0}, "expires_in_s"),
    ({"tenant": "a", "expires_in_s": "60"}, "expires_in_s"),
    ({"tenant": "a", "name": 1}, "name"),
    ({"tenant": "a", "profile": "nope"}, "profile"),
    ({"tenant": "a", "id": "0" * 16}, "id"),
    ({"tenant": "a", "digest": "x"}, "digest"),
]
SMALL = Limits(requests_per_minute=10, tokens_per_minute=1000, concurrency=1)


class Office:
    def __init__(self, database: SqlDatabase) -> None:
        self.now = float(NOW)
        self.database = database
        self.keys = KeyService(database, PEPPER, clock=lambda: self.now)
        self.door = ApiKeyService("bootstrap-key", database, PEPPER, clock=lambda: self.now, monotonic=lambda: self.now)

    async def create(self, minter: Minter | None = None, **asked: Any) -> Minted:
        return await self.keys.create(minter or Minter(), NewKey(tenant="acme", **asked))

    async def enters(self, minted: Minted) -> bool:
        try:
            await self.door.authenticate(f"Bearer {minted.text}")
        except Unauthenticated:
            return False
        return True

    async def log(self) -> list[AuditEntry]:
        """The oldest first."""
        return list((await self.keys.audit(None, before=None, limit=100)).data)[::-1]

    async def all(self) -> list[ApiKey]:
        return list((await self.keys.page(None, EVERYTHING)).data)


@pytest.fixture
def office(sqlite_database: SqlDatabase) -> Office:
    return Office(sqlite_database)


def admin(**fields: Any) -> Minter:
    given = {"key_id": "f" * 16, "tenant": "root", "scopes": frozenset({"admin"})}
    return Minter(principal=Principal(**{**given, **fields}), request_id="req_1", client="10.0.0.1")


async def test_a_new_key_may_do_what_people_want(office: Office) -> None:
    """All but the service's own affairs, for ever and without limits; it works at once."""
    made = await office.create(name="notebook")
    assert made.key == msgspec.structs.replace(
        made.key, tenant="acme", name="notebook", scopes=USUAL_SCOPES, created_at=NOW, expires_at=None, limits=Limits()
    )
    assert made.key.created_by is None
    assert await office.enters(made)


async def test_what_makes_no_sense_is_refused(office: Office) -> None:
    """With the parameter's name; nothing is made for it."""
    wrong: list[tuple[dict[str, Any], str]] = [
        *(({"tenant": name}, "tenant") for name in ("", "Acme", "a b", "-a", "_a", "a" * 65, "ä", "a\n")),
        ({"name": "n" * 257}, "name"),
        ({"scopes": frozenset()}, "scopes"),
        ({"limits": Limits(concurrency=0)}, "limits.concurrency"),
        ({"limits": Limits(concurrency=MOST + 1)}, "limits.concurrency"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": 10**12}, "expires_in_s"),
    ]
    for asked, param in wrong:
        with pytest.raises(InvalidRequest) as caught:
            await office.keys.create(Minter(), NewKey(**{"tenant": "acme", **asked}))
        assert caught.value.param == param
    assert await office.all() == []


async def test_a_key_gets_what_its_minter_has(office: Office) -> None:
    """Where nothing else is asked for: its end and its limits. Less may be asked for."""
    minter = admin(expires_at=NOW + 100, limits=SMALL)
    key = (await office.create(minter)).key
    assert (key.expires_at, key.limits, key.created_by) == (NOW + 100, SMALL, "f" * 16)
    less = Limits(requests_per_minute=9)
    key = (await office.create(minter, expires_in_s=99, limits=less, scopes=frozenset({"admin"}))).key
    assert (key.expires_at, key.limits) == (NOW + 99, msgspec.structs.replace(SMALL, requests_per_minute=9))


async def test_a_key_never_exceeds_its_minter(office: Office) -> None:
    """Neither in time nor in what it may use."""
    beyond: list[tuple[dict[str, Any], str]] = [
        ({"expires_in_s": 101}, "expires_in_s"),
        ({"limits": Limits(requests_per_minute=11)}, "limits.requests_per_minute"),
        ({"limits": Limits(tokens_per_minute=1001)}, "limits.tokens_per_minute"),
        ({"limits": Limits(concurrency=2)}, "limits.concurrency"),
    ]
    for asked, param in beyond:
        with pytest.raises(Forbidden) as caught:
            await office.create(admin(expires_at=NOW + 100, limits=SMALL), **asked)
        assert (caught.value.param, caught.value.code) == (param, "exceeds_minter")
    assert await office.all() == []


@pytest.mark.parametrize("scopes", [USUAL_SCOPES, frozenset({"metrics"})])
async def test_keys_are_the_business_of_admins(office: Office, scopes: frozenset[Scope]) -> None:
    """Whatever else a key may do; the services see to it too, not only the routes."""
    made = await office.create()
    minter = admin(scopes=scopes)
    for call in (
        office.create(minter),
        office.keys.rotate(minter, made.key.id),
        office.keys.revoke(minter, made.key.id),
    ):
        with pytest.raises(Forbidden):
            await call
    assert await office.all() == [made.key]


def test_a_scope_that_the_minter_lacks_cannot_be_given() -> None:
    """Were it not for admins alone: no key hands on what it does not have."""
    minter = admin(scopes=frozenset({"chat", "models"}))
    assert minter.scopes(frozenset({"chat"})) == {"chat"}
    with pytest.raises(Forbidden, match="'metrics'"):
        minter.scopes(frozenset({"chat", "metrics"}))


async def test_rotation_overlaps(office: Office) -> None:
    """The new key has all that the old one had; both work for a day, and then the new one alone."""
    old = await office.create(
        name="notebook", scopes=frozenset({"chat"}), limits=SMALL, profile="concise", expires_in_s=9 * DAY_S
    )
    new = await office.keys.rotate(Minter(), old.key.id)
    assert new.key.id != old.key.id
    same = ("tenant", "name", "scopes", "limits", "profile", "expires_at")
    assert [getattr(new.key, each) for each in same] == [getattr(old.key, each) for each in same]
    assert new.replaced is not None
    assert (new.replaced.expires_at, new.replaced.replaced_by) == (NOW + DAY_S, new.key.id)
    office.now += DAY_S - 1
    assert [await office.enters(key) for key in (old, new)] == [True, True]
    office.now += 1
    assert [await office.enters(key) for key in (old, new)] == [False, True]


async def test_rotation_without_overlap_ends_the_old_key_at_once(office: Office) -> None:
    """And can give the new one a time of its own."""
    old = await office.create()
    new = await office.keys.rotate(Minter(), old.key.id, overlap_s=0, expires_in_s=60)
    assert [await office.enters(key) for key in (old, new)] == [False, True]
    assert new.key.expires_at == NOW + 60


async def test_rotation_makes_no_key_live_longer(office: Office) -> None:
    """One that ends within the overlap still ends then."""
    old = await office.create(expires_in_s=60)
    new = await office.keys.rotate(Minter(), old.key.id)
    assert new.replaced is not None
    assert (new.replaced.expires_at, new.key.expires_at) == (NOW + 60, NOW + 60)


async def test_a_rotated_key_never_exceeds_whoever_rotates_it(office: Office) -> None:
    """A key of more than that is not had by rotating one."""
    old = await office.create(limits=Limits(concurrency=9), expires_in_s=1000)
    for minter in (admin(limits=SMALL), admin(expires_at=NOW + 999)):
        with pytest.raises(Forbidden):
            await office.keys.rotate(minter, old.key.id)
    assert await office.all() == [old.key]


async def test_a_key_that_has_ended_is_not_rotated(office: Office) -> None:
    """A revoked key does not come back that way, nor does one that was rotated have two successors."""
    revoked, expired, rotated = await office.create(), await office.create(expires_in_s=1), await office.create()
    await office.keys.revoke(Minter(), revoked.key.id)
    await office.keys.rotate(Minter(), rotated.key.id)
    office.now += 1
    codes = []
    for made in (revoked, expired, rotated):
        with pytest.raises(InvalidRequest) as caught:
            await office.keys.rotate(Minter(), made.key.id)
        codes.append(caught.value.code)
    assert codes == ["api_key_ended", "api_key_ended", "api_key_rotated"]


async def test_one_of_several_who_rotate_at_once_does(database: SqlDatabase) -> None:
    """On both databases: there is one successor, and it works."""
    office = Office(database)
    old = await office.create()
    done = await asyncio.gather(*(office.keys.rotate(Minter(), old.key.id) for _ in range(4)), return_exceptions=True)
    successors = [each for each in done if isinstance(each, Minted)]
    assert len(successors) == 1
    assert await office.enters(successors[0])
    assert {each.code for each in done if isinstance(each, ServiceError)} == {"api_key_rotated"}
    assert {key.id for key in await office.all()} == {old.key.id, successors[0].key.id}


async def test_a_revocation_wins_over_a_rotation(database: SqlDatabase) -> None:
    """In whichever order they come, the old key is dead; a successor is there only if the log says so."""
    office = Office(database)
    made = [await office.create() for _ in range(6)]
    calls = [call(Minter(), each.key.id) for each in made for call in (office.keys.rotate, office.keys.revoke)]
    await asyncio.gather(*calls, return_exceptions=True)
    office.now += 1
    assert [await office.enters(each) for each in made] == [False] * 6
    rotated = [each.target for each in await office.log() if each.action == "key.rotated"]
    assert {key.id for key in await office.all() if key.replaced_by} == set(rotated)


async def test_revocation_is_once_and_for_all(office: Office) -> None:
    """Twice is as good as once, and is written down once."""
    made = await office.create()
    first = await office.keys.revoke(Minter(), made.key.id)
    office.now += 5
    assert await office.keys.revoke(Minter(), made.key.id) == first
    assert first.revoked_at == NOW
    assert not await office.enters(made)
    assert [each.action for each in await office.log()] == ["key.created", "key.revoked"]


async def test_an_unknown_key_is_missing(office: Office) -> None:
    """And is not repeated: it may be a whole key, in the wrong place."""
    keys = office.keys
    for key_id in ("0" * 16, "hm2_" + "0" * 66, "%"):
        for call in (keys.get(key_id), keys.rotate(Minter(), key_id), keys.revoke(Minter(), key_id)):
            with pytest.raises(NotFound) as caught:
                await call
            assert key_id not in caught.value.message


async def test_the_log_tells_who_did_what(office: Office) -> None:
    """With the request and the address; the command line under its own name. No secret and no digest is in it."""
    made = await office.create(name="n", limits=SMALL)
    new = await office.keys.rotate(admin(), made.key.id, overlap_s=60)
    await office.keys.revoke(admin(key_id="bootstrap"), new.key.id)
    log = await office.log()
    assert [(each.action, each.actor, each.target) for each in log] == [
        ("key.created", "command-line", made.key.id),
        ("key.rotated", "f" * 16, made.key.id),
        ("key.created", "f" * 16, new.key.id),
        ("key.revoked", "bootstrap", new.key.id),
    ]
    assert {(each.request_id, each.client) for each in log[1:]} == {("req_1", "10.0.0.1")}
    assert {(each.tenant, each.at) for each in log} == {("acme", NOW)}
    assert log[0].detail == {
        "name": "n",
        "scopes": sorted(USUAL_SCOPES),
        "profile": None,
        "limits": msgspec.to_builtins(SMALL),
        "expires_at": None,
    }
    assert log[1].detail == {"replaced_by": new.key.id, "expires_at": NOW + 60}
    assert log[2].detail["replaces"] == made.key.id
    text = msgspec.json.encode(log).decode()
    assert not any(secret in text for each in (made, new) for secret in (each.text[21:64], each.key.digest.hex()))


async def test_what_cannot_be_logged_is_not_done(
    office: Office, sqlite_database: SqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change and its entry are one transaction."""
    made = await office.create()
    before = await contents(f"sqlite:///{tmp_path}/hermes2.db")
    monkeypatch.setattr("frontend.db.audit.SqlAudit.add", broken)
    for call in (office.create(), office.keys.rotate(Minter(), made.key.id), office.keys.revoke(Minter(), made.key.id)):
        with pytest.raises(ZeroDivisionError):
            await call
    assert await contents(f"sqlite:///{tmp_path}/hermes2.db") == before


async def broken(*_: object) -> None:
    raise ZeroDivisionError


@pytest.fixture
async def client(sqlite_database: SqlDatabase, smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of the bootstrap key."""
    async with client_for(FakeEngine(), smollm2, database=sqlite_database) as client:
        yield client


async def told(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


class TestRoutes:
    async def test_a_life(self, client: httpx.AsyncClient) -> None:
        """Made, used, rotated, revoked; each reply is the key as it is then."""
        made = await told(await client.post("/v1/admin/keys", json={"tenant": "acme", "name": "n"}))
        key = made["api_key"]
        assert set(made) == {"key", "api_key", "replaces"}
        assert key == {
            "id": made["key"][4:20],
            "object": "api_key",
            "tenant": "acme",
            "name": "n",
            "status": "active",
            "scopes": sorted(USUAL_SCOPES),
            "limits": {"requests_per_minute": None, "tokens_per_minute": None, "concurrency": None},
            "profile": None,
            "created_at": key["created_at"],
            "created_by": "bootstrap",
            "expires_at": None,
            "revoked_at": None,
            "last_used_at": None,
            "replaced_by": None,
        }
        path = f"/v1/admin/keys/{key['id']}"
        assert await told(await client.get(path)) == key
        assert await status(client, made["key"]) == 200
        new = await told(await client.post(f"{path}/rotate", json={"overlap_s": 60}))
        assert new["replaces"] == key | {
            "expires_at": new["replaces"]["expires_at"],
            "replaced_by": new["api_key"]["id"],
        }
        assert [await status(client, each["key"]) for each in (made, new)] == [200, 200]
        ended = await told(await client.post(f"/v1/admin/keys/{new['api_key']['id']}/revoke"))
        assert (ended["status"], ended["revoked_at"] is None) == ("revoked", False)

    async def test_a_secret_is_shown_once(self, client: httpx.AsyncClient) -> None:
        """In the reply that makes it, and in no other."""
        made = await told(await client.post("/v1/admin/keys", json={"tenant": "acme"}))
        new = await told(await client.post(f"/v1/admin/keys/{made['api_key']['id']}/rotate", json={}))
        replies = [
            (await client.get(path)).text
            for path in ("/v1/admin/keys", f"/v1/admin/keys/{new['api_key']['id']}", "/v1/admin/audit")
        ]
        secrets = [each["key"][21:64] for each in (made, new)]
        assert not any(secret in reply for secret in secrets for reply in replies)

    async def test_lists_come_in_pages(self, client: httpx.AsyncClient) -> None:
        """Of all tenants or of one, the newest first."""
        ids = [
            (await told(await client.post("/v1/admin/keys", json={"tenant": tenant})))["api_key"]["id"]
            for tenant in ("a", "b", "a")
        ]
        page = await told(await client.get("/v1/admin/keys", params={"tenant": "a", "limit": 1, "order": "asc"}))
        first = page["data"][0]["id"]
        assert first in (ids[0], ids[2])
        assert page == {"object": "list", "data": page["data"], "first_id": first, "last_id": first, "has_more": True}
        rest = await told(await client.get("/v1/admin/keys", params={"after": first, "tenant": "a", "order": "asc"}))
        assert {each["id"] for each in rest["data"]} | {first} == {ids[0], ids[2]}
        assert {each["id"] for each in (await told(await client.get("/v1/admin/keys")))["data"]} == set(ids)
        nothing = await told(await client.get("/v1/admin/keys", params={"tenant": "c"}))
        assert nothing == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}

    async def test_the_audit_log_in_pages(self, client: httpx.AsyncClient) -> None:
        """The newest first, with the request that did it."""
        for tenant in ("a", "b", "a"):
            headers = {"x-request-id": f"of-{tenant}"}
            await told(await client.post("/v1/admin/keys", json={"tenant": tenant}, headers=headers))
        page = await told(await client.get("/v1/admin/audit", params={"limit": 2}))
        assert [(each["tenant"], each["request_id"], each["actor"], each["client"]) for each in page["data"]] == [
            ("a", "of-a", "bootstrap", "127.0.0.1"),
            ("b", "of-b", "bootstrap", "127.0.0.1"),
        ]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (3, 2, True)
        rest = await told(await client.get("/v1/admin/audit", params={"before": page["last_id"]}))
        assert [each["id"] for each in rest["data"]] == [1]
        mine = await told(await client.get("/v1/admin/audit", params={"tenant": "a"}))
        assert [each["id"] for each in mine["data"]] == [3, 1]

    async def test_bodies_are_strict(self, client: httpx.AsyncClient) -> None:
        """With the parameter's name, and nothing is made."""
        for body, param in WRONG:
            response = await told(await client.post("/v1/admin/keys", json=body), 400)
            assert response["error"]["param"] == param
        assert (await told(await client.get("/v1/admin/keys")))["data"] == []

    async def test_a_limited_admin_is_held_to_it(self, client: httpx.AsyncClient) -> None:
        """As a key of its own: what it makes ends with it."""
        asked = {"tenant": "acme", "scopes": ["admin"], "expires_in_s": 3600, "limits": {"concurrency": 2}}
        made = await told(await client.post("/v1/admin/keys", json=asked))
        as_admin = {"authorization": f"Bearer {made['key']}"}

        async def mint(status: int, **asked: object) -> Any:
            body = {"tenant": "acme", **asked}
            return await told(await client.post("/v1/admin/keys", json=body, headers=as_admin), status)

        child = (await mint(200))["api_key"]
        assert (child["expires_at"], child["limits"]["concurrency"]) == (made["api_key"]["expires_at"], 2)
        assert child["created_by"] == made["api_key"]["id"]
        assert (await mint(403, expires_in_s=4000))["error"]["code"] == "exceeds_minter"
        assert (await mint(403, limits={"concurrency": 3}))["error"]["param"] == "limits.concurrency"

    async def test_an_unknown_key_is_not_repeated(self, client: httpx.AsyncClient) -> None:
        """A whole key that was sent in the place of its id does not come back in a message."""
        made = await told(await client.post("/v1/admin/keys", json={"tenant": "acme"}))
        for key_id in ("0" * 16, made["key"]):
            error = (await told(await client.get(f"/v1/admin/keys/{key_id}"), 404))["error"]
            assert key_id not in error["message"]


async def status(client: httpx.AsyncClient, key: str) -> int:
    return (await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})).status_code
