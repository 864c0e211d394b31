"""Every route, every method, every way of having no right to it. The routes are the application's own: a new one cannot be
forgotten, and what each needs stands in docs/keys.md."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from litestar import Litestar, get
from litestar.routes import HTTPRoute

from frontend import app as composition
from frontend import settings
from frontend.db.database import SqlDatabase
from frontend.db.engines import database_url, sqlite_url
from frontend.domain.principal import SCOPES, Scope
from frontend.http.auth import PUBLIC
from frontend.services.keys import form
from frontend.services.keys.management import KeyService, Minted, NewKey
from frontend.services.keys.minter import Minter
from frontend.services.keys.pepper import read_pepper
from frontend.settings import ROOT
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.engine import FakeEngine
from tests.support.app import HEADERS, PEPPER, client_for
from tests.support.database import opened
from tests.support.stack import API_KEY, Stack

OPEN = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/health/startup"),
    ("OPTIONS", "/health/live"),
    ("OPTIONS", "/health/ready"),
    ("OPTIONS", "/health/startup"),
}
"""All that is answered without a key."""
ANY = "any"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WITHIN_S = 1.0

Place = tuple[str, str]
"""Method and path, its parameters in braces."""


class Door:
    """The whole application over a real database, and keys of every kind."""

    def __init__(self, client: httpx.AsyncClient, database: SqlDatabase) -> None:
        self.client = client
        self.keys = KeyService(database, PEPPER)
        self.places = places(cast(Any, client._transport).app._app)

    async def mint(self, **asked: Any) -> Minted:
        return await self.keys.create(Minter(), NewKey(tenant="acme", **asked))

    async def knock(self, place: Place, **sent: Any) -> httpx.Response:
        method, path = place
        path = re.sub(r"\{\w+\}", "0" * 16, path)
        body: dict[str, Any] = {"json": {}} if method == "POST" else {}
        self.client.headers.pop("authorization", None)
        return await self.client.request(method, path, **{**body, **sent})


def places(app: Litestar) -> list[Place]:
    found = [
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.route_handler_map
    ]
    assert len(found) > 100
    assert len(app.routes) == len({path for _, path in found})
    return sorted(found)


def bearer(key: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {key}"}}


@asynccontextmanager
async def doors(database: SqlDatabase, model: Path, count: int = 1) -> AsyncIterator[list[Door]]:
    """So many instances of the service on one database."""
    async with AsyncExitStack() as stack:
        yield [
            Door(
                await stack.enter_async_context(
                    client_for(FakeEngine(), model, embedder=FakeEmbedder(), database=database)
                ),
                database,
            )
            for _ in range(count)
        ]


@pytest.fixture
async def door(sqlite_database: SqlDatabase, smollm2: Path, minilm: Path) -> AsyncIterator[Door]:
    async with doors(sqlite_database, smollm2) as (door,):
        yield door


async def refusals(door: Door) -> dict[str, dict[str, Any]]:
    """Everything that is not a key, as it is sent."""
    good, revoked = await door.mint(), await door.mint()
    await door.keys.revoke(Minter(), revoked.key.id)
    earlier = KeyService(door.keys._database, PEPPER, clock=lambda: time.time() - 10)
    expired = await earlier.create(Minter(), NewKey(tenant="acme", expires_in_s=1))
    key, (key_id, secret) = good.text, form.parse(good.text)
    other_secret = form.parse(revoked.text)[1]
    stored = base64.urlsafe_b64encode(good.key.digest).decode().rstrip("=")
    return {
        "none": {},
        "empty": {"headers": {"authorization": ""}},
        "only the scheme": {"headers": {"authorization": "Bearer "}},
        "no scheme": {"headers": {"authorization": key}},
        "another scheme": {"headers": {"authorization": f"Basic {base64.b64encode(key.encode()).decode()}"}},
        "the key under another scheme": {"headers": {"authorization": f"Token {key}"}},
        "in the query string": {"params": {"api_key": key, "access_token": key, "authorization": f"Bearer {key}"}},
        "in another header": {"headers": {"x-api-key": key, "api-key": key, "proxy-authorization": f"Bearer {key}"}},
        "in a cookie": {"headers": {"cookie": f"authorization=Bearer {key}; api_key={key}"}},
        "malformed": bearer("hm2_nothing"),
        "not ASCII": {"headers": {"authorization": "Bearer clé-secrète-à-deviner".encode()}},
        "very long": bearer("x" * 8000),
        "unknown id": bearer(form.text_of("0" * 16, secret)),
        "wrong secret": bearer(form.text_of(key_id, other_secret)),
        "wrong check digits": bearer(key[:-6] + "000000"),
        "cut": bearer(key[:-1]),
        "longer": bearer(key + "0"),
        "two keys": bearer(f"{key}, Bearer {key}"),
        "the stored digest": bearer(form.text_of(key_id, stored)),
        "the stored digest as it is": bearer(good.key.digest.hex()),
        "the id": bearer(key_id),
        "the secret": bearer(secret),
        "the bootstrap key's digest": bearer(hashlib.sha256(API_KEY.encode()).hexdigest()),
        "the bootstrap key but for its end": bearer(API_KEY[:-1]),
        "expired": bearer(expired.text),
        "revoked": bearer(revoked.text),
    }


async def test_nothing_but_a_key_opens_a_route(door: Door) -> None:
    """Every route with every kind of bad key: 401, the same envelope, and nothing of what was sent in it."""
    wrong, asked = [], 0
    for name, sent in (await refusals(door)).items():
        for place in door.places:
            if place in OPEN:
                continue
            asked += 1
            reply = await door.knock(place, **sent)
            if not is_refusal(reply):
                wrong.append((name, place, reply.status_code, reply.text[:200]))
    assert wrong == []
    assert asked > 2500


def is_refusal(reply: httpx.Response) -> bool:
    if reply.status_code != 401 or reply.headers.get("www-authenticate") != "Bearer":
        return False
    error = reply.json()["error"]
    told = {
        "No API key was sent: use the header 'Authorization: Bearer KEY'.",
        "The API key is not known.",
        "The API key has expired, or was revoked.",
    }
    return error.pop("message") in told and error == {
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


async def test_the_public_list_is_exact(door: Door) -> None:
    """What answers without a key is this list, word for word, and nothing else."""
    answered = {place for place in door.places if (await door.knock(place)).status_code != 401}
    assert answered == OPEN


async def test_a_method_that_a_route_lacks_opens_nothing(door: Door) -> None:
    """With and without a key: 405 or 404, never what another method would have answered."""
    paths = {path for _, path in door.places}
    statuses = {
        (await door.knock((method, path), **sent)).status_code
        for path in paths
        for method in METHODS
        if (method, path) not in door.places
        for sent in ({}, {"headers": HEADERS})
    }
    assert statuses <= {404, 405}


async def test_each_scope_opens_what_the_page_says(door: Door) -> None:
    """A key with this scope alone: its routes and those for any key; everything else is 403 `insufficient_scope`."""
    page = documented()
    assert set(page) == {place for place in door.places if place[0] != "OPTIONS"}
    wrong = []
    for scope in SCOPES:
        key = (await door.mint(scopes=frozenset({scope}))).text
        for place in door.places:
            reply = await door.knock(place, **bearer(key))
            opened = reply.status_code not in (401, 403)
            if opened != may(scope, place, page) or (not opened and not lacks_scope(reply)):
                wrong.append((scope, place, reply.status_code, reply.text[:200]))
    assert wrong == []


def may(scope: Scope, place: Place, page: Mapping[Place, str]) -> bool:
    return place[0] == "OPTIONS" or scope == "admin" or page[place] in (scope, ANY, "none, and no key")


def lacks_scope(reply: httpx.Response) -> bool:
    error = reply.json()["error"]
    return (reply.status_code, error["code"]) == (403, "insufficient_scope")


def documented() -> dict[Place, str]:
    """What docs/keys.md says of each method and path."""
    text = (ROOT / "docs/keys.md").read_text()
    table = text[text.index("| route | scope |") :].split("\n\n")[0]
    app = composition.create_app(settings.load({"HERMES2_EMBEDDER_ENABLED": "true"}))
    known = places(app)
    page: dict[Place, str] = {}
    for row in table.splitlines()[2:]:
        _, routes, scope, _ = row.split("|")
        methods = set(re.findall(r"\b(GET|POST|DELETE)\b", routes.split("`")[0])) or {"GET", "POST", "DELETE"}
        for path in re.findall(r"`([^`]+)`", routes):
            for place in known:
                if place[1] == path and place[0] in methods:
                    assert place not in page, place
                    page[place] = scope.strip().strip("`")
    return page


@get("/bare")
async def bare() -> str:
    return "open"


async def test_a_route_without_a_scope_is_closed(
    sqlite_database: SqlDatabase, smollm2: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To everybody, the administrator too: whoever adds one has to say what it needs."""
    monkeypatch.setattr(composition, "CONTROLLERS", [*composition.CONTROLLERS, bare])
    async with doors(sqlite_database, smollm2) as (door,):
        reply = await door.knock(("GET", "/bare"), headers=HEADERS)
        assert (reply.status_code, reply.json()["error"]["message"]) == (403, "This route is closed.")
        assert (await door.knock(("GET", "/bare"))).status_code == 401


HELLO = {"model": "hermes-2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
ASKS = {"model": "hermes-2", "input": "Hi", "max_output_tokens": 16}
SEARCH = {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}
STORES = {"context": {"vector_store_ids": ["vs_1"]}}
SESSION = {"x-session-id": "sess_1"}
CHAT, RESPONSES, COUNT = "/v1/chat/completions", "/v1/responses", "/v1/responses/input_tokens"
BEYOND: list[tuple[str, Mapping[str, object], Mapping[str, str], Scope, Scope, str]] = [
    *((path, body | {"conversation": "conv_1"}, {}, "chat", "conversations", "conversation")
      for path, body in ((CHAT, HELLO), (RESPONSES, ASKS))),
    *((path, body | {"conversation": {"id": "conv_1"}}, {}, "chat", "conversations", "conversation")
      for path, body in ((CHAT, HELLO), (RESPONSES, ASKS))),
    *((path, body, SESSION, "chat", "conversations", "X-Session-ID") for path, body in ((CHAT, HELLO), (RESPONSES, ASKS))),
    *((path, body | SEARCH, {}, "chat", "retrieval:read", "tools") for path, body in ((CHAT, HELLO), (RESPONSES, ASKS))),
    (COUNT, {"model": "hermes-2", "input": "Hi", "conversation": "conv_1"}, {}, "chat", "conversations", "conversation"),
    (COUNT, {"model": "hermes-2", "input": "Hi"}, SESSION, "chat", "conversations", "X-Session-ID"),
    ("/v1/conversations", STORES, {}, "conversations", "retrieval:read", "context.vector_store_ids"),
    ("/v1/conversations/conv_1", STORES, {}, "conversations", "retrieval:read", "context.vector_store_ids"),
    ("/v1/sessions", STORES, {}, "conversations", "retrieval:read", "context.vector_store_ids"),
]  # fmt: skip


async def test_ids_in_a_request_need_the_scope_of_their_own_routes(door: Door) -> None:
    """The parameter is named; with both scopes the request gets as far as to what the id is, which is not there."""
    for path, body, headers, has, needs, param in BEYOND:
        scopes = frozenset({has})
        for given, status in ((scopes, 403), (scopes | {needs}, 404)):
            key = (await door.mint(scopes=given)).text
            sent = {"json": body, "headers": {"authorization": f"Bearer {key}", **headers}}
            reply = await door.knock(("POST", path), **sent)
            assert reply.status_code == status, (path, body, headers, given, reply.text)
            if status == 403:
                error = reply.json()["error"]
                assert (error["code"], error["param"]) == ("insufficient_scope", param)


async def test_a_refused_admin_route_is_in_the_log_and_not_in_the_database(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the id of the key: a write for each would let any key fill the disk."""
    made = await door.mint()
    assert (await door.knock(("GET", "/v1/admin/audit"), **bearer(made.text))).status_code == 403
    line = next(line for line in capsys.readouterr().out.splitlines() if "admin_denied" in line)
    assert made.key.id in line
    assert made.text[21:] not in line
    assert [each.action for each in (await door.keys.audit(None, before=None, limit=9)).data] == ["key.created"]


async def test_a_revocation_reaches_every_instance_within_a_second(tmp_path: Path, smollm2: Path, minilm: Path) -> None:
    """Two instances on one database, both of which use the key all the time."""
    async with opened(sqlite_url(tmp_path / "hermes2.db")) as database, doors(database, smollm2, 2) as instances:
        made = await instances[0].mint()
        place, sent = ("GET", "/v1/models"), bearer(made.text)
        assert [(await door.knock(place, **sent)).status_code for door in instances] == [200, 200]
        as_admin = {"headers": HEADERS}
        reply = await instances[0].knock(("POST", f"/v1/admin/keys/{made.key.id}/revoke"), **as_admin)
        revoked = time.monotonic()
        assert reply.status_code == 200
        for door in instances:
            while (await door.knock(place, **sent)).status_code == 200:
                assert time.monotonic() - revoked < WITHIN_S
        assert time.monotonic() - revoked < WITHIN_S


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("keys"), ENGINE_BACKEND="scripted", WORKERS=2) as running:
        yield running


class Tried(msgspec.Struct, frozen=True):
    status: int
    began_s: float
    """Seconds after the revocation."""


async def test_two_real_workers_refuse_a_revoked_key_within_a_second(two_workers: Stack) -> None:
    """Revoked by another process, on the database; each request is a new connection, and reaches either worker."""
    home = two_workers.home
    url = database_url(settings.load({"HERMES2_HOME": str(home)}))
    async with opened(url) as database:
        keys = KeyService(database, read_pepper(home / "pepper"))
        made = await keys.create(Minter(), NewKey(tenant="acme"))
        headers = bearer(made.text)["headers"] | {"connection": "close"}
        with httpx.Client(base_url=two_workers.url, headers=headers) as http:
            assert {each.status for each in try_for(http, 0.2)} == {200}
            await keys.revoke(Minter(), made.key.id)
            tried = list(try_for(http, WITHIN_S + 0.3))
    late = [each.status for each in tried if each.began_s > WITHIN_S]
    assert len(late) >= 10
    assert set(late) == {401}


def try_for(http: httpx.Client, seconds: float) -> Iterator[Tried]:
    """One request after the other; the time is that at which each began."""
    started = time.monotonic()
    while (began_s := time.monotonic() - started) < seconds:
        yield Tried(http.get("/v1/models").status_code, began_s)


def test_the_real_service_is_closed(two_workers: Stack) -> None:
    """Every route that its own page names, without a key and with a bad one; through Granian, as the world sees it."""
    with httpx.Client(base_url=two_workers.url) as http:
        paths = http.get("/schema/openapi.json", headers=HEADERS).json()["paths"]
        for path, methods in paths.items():
            for method in set(methods) & {"get", "post", "delete"}:
                place = (method.upper(), path)
                target = re.sub(r"\{\w+\}", "0" * 16, path)
                for sent in ({}, bearer("hm2_" + "0" * 66), {"params": {"api_key": API_KEY}}):
                    reply = http.request(method, target, **sent)
                    assert (reply.status_code == 401) == (place not in OPEN), (place, reply.text)
    assert len(paths) > 20


def test_health_is_all_that_is_public() -> None:
    """By its mark, too: nobody else has it."""
    app = composition.create_app(settings.load({"HERMES2_EMBEDDER_ENABLED": "true"}))
    marked = {
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if handler.opt.get("public") == PUBLIC["public"]
    }
    assert marked == OPEN
