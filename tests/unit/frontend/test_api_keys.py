"""frontend/services/keys: what a key looks like, who it belongs to, what it is worth while the database is away, and when
it was used last. Management: test_key_management."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.api_keys import ApiKey
from frontend.domain.errors import Unauthenticated, Unavailable
from frontend.domain.limits import Limits
from frontend.domain.principal import Principal
from frontend.domain.storage import Database, UnitOfWork
from frontend.services.keys import authentication, form, last_used
from frontend.services.keys.authentication import ApiKeyService
from frontend.services.keys.management import USUAL_SCOPES, KeyService, NewKey
from frontend.services.keys.minter import Minter
from frontend.services.keys.pepper import read_pepper
from frontend.settings import SettingsError
from tests.support.database import counted
from tests.support.records import NOW, api_key

BOOTSTRAP_KEY = "a-bootstrap-key-of-any-form"
PEPPER = b"p" * 32
Authenticate = Callable[[str], Awaitable[Principal]]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Flaky:
    """A database that can be away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.away = False
        self.asked = 0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[UnitOfWork]:
        self.asked += 1
        if self.away:
            raise Unavailable("It is away.")
        async with self._database.reading() as uow:
            yield uow

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[UnitOfWork]:
        if self.away:
            raise Unavailable("It is away.")
        async with self._database.writing() as uow:
            yield uow

    async def check(self) -> bool:
        return not self.away


class Desk:
    """A service, its database and its clock, with one key of tenant acme."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database, self.clock = Flaky(database), Clock()
        self.service = ApiKeyService(BOOTSTRAP_KEY, self.database, PEPPER, clock=self.clock, monotonic=self.clock)
        self.key = ""

    async def make(self, tenant: str = "acme", **asked: Any) -> str:
        service = KeyService(self.database, PEPPER, clock=self.clock)
        return (await service.create(Minter(), NewKey(tenant=tenant, **asked))).text

    async def last_used(self, key: str) -> int | None:
        async with self.database.reading() as uow:
            stored = await uow.keys.find(key[4:20])
        assert stored is not None
        return stored.last_used_at

    async def ask(self, key: str) -> Principal:
        return await self.service.authenticate(f"Bearer {key}")

    async def refused(self, key: str) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.ask(key)
        return caught.value.message


@pytest.fixture
async def desk(sqlite_database: SqlDatabase) -> Desk:
    desk = Desk(sqlite_database)
    desk.key = await desk.make(profile="agent")
    return desk


async def test_a_key_tells_its_tenant(desk: Desk) -> None:
    """With all that it may do, and its profile; any case of the scheme, spaces around the key."""
    expected = Principal(desk.key[4:20], "acme", USUAL_SCOPES, "agent")
    assert await desk.ask(desk.key) == expected
    assert await desk.service.authenticate(f"bearer   {desk.key} ") == expected
    limits = Limits(requests_per_minute=1, concurrency=2)
    other = await desk.make(scopes=frozenset({"metrics"}), limits=limits, expires_in_s=60)
    expected = Principal(other[4:20], "acme", frozenset({"metrics"}), None, limits, NOW + 60)
    assert await desk.ask(other) == expected


async def test_each_request_has_a_standing_of_its_own(desk: Desk) -> None:
    """What the limiter says of one is not shown to another, whatever key they share."""
    for key in (desk.key, BOOTSTRAP_KEY):
        first, second = await desk.ask(key), await desk.ask(key)
        assert first.standing is not second.standing


async def test_the_form_of_a_key(desk: Desk) -> None:
    """70 characters that a double click marks or a header holds; no two alike, and nothing of the secret is stored."""
    keys = {desk.key, *[await desk.make() for _ in range(20)]}
    assert len(keys) == 21
    assert all(form.KEY.fullmatch(key) and len(key) == 70 for key in keys)
    async with desk.database.reading() as uow:
        stored = await uow.keys.find(desk.key[4:20])
    assert stored is not None
    secret = desk.key[21:64]
    assert stored.digest == form.digest(PEPPER, secret)
    assert secret.encode() not in msgspec.json.encode(msgspec.to_builtins(stored))


async def test_what_is_no_key_does_not_reach_the_database(desk: Desk) -> None:
    """Each typo, each truncation, each form of another kind: told by the check digits."""
    asked = desk.database.asked
    wrong = [desk.key[:n] + ("A" if desk.key[n] != "A" else "B") + desk.key[n + 1 :] for n in range(len(desk.key))]
    wrong += [desk.key[:n] for n in range(1, len(desk.key))]
    wrong += [
        desk.key + "A",
        desk.key[:64] + "000000",
        "hm2_" + "x" * 43,
        "ü" * 70,
        "\x00",
        desk.key[:30] + "\n" + desk.key[31:],
    ]
    with counted() as statements:
        messages = {await desk.refused(key) for key in wrong}
    assert messages == {"The API key is not known."}
    assert (statements, desk.database.asked) == ([], asked)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic abc", "bearer\tx"])
async def test_no_key_is_told_as_such(desk: Desk, header: str | None) -> None:
    """With the header that was expected."""
    with pytest.raises(Unauthenticated, match="Authorization: Bearer KEY"):
        await desk.service.authenticate(header)


async def test_a_wrong_secret_is_refused_like_an_unknown_id(desk: Desk) -> None:
    """With check digits that fit: by the same message."""
    other = await desk.make()
    for forged in (desk.key[:21] + other[21:64], "hm2_" + "0" * 16 + desk.key[20:64]):
        assert await desk.refused(forged + form.check(forged)) == "The API key is not known."


async def test_another_pepper_knows_no_key(desk: Desk) -> None:
    """A copy of the database alone is of no use; neither is a stored digest."""
    elsewhere = ApiKeyService(BOOTSTRAP_KEY, desk.database, b"q" * 32)
    with pytest.raises(Unauthenticated):
        await elsewhere.authenticate(f"Bearer {desk.key}")


async def test_an_expired_or_revoked_key_is_refused(desk: Desk, sqlite_database: SqlDatabase) -> None:
    """From the second of its end on."""
    for key_id, ends in (("0" * 16, {"expires_at": NOW + 10}), ("1" * 16, {"revoked_at": NOW})):
        async with sqlite_database.writing() as uow:
            await uow.keys.add("acme", api_key(key_id, tenant="acme", digest=form.digest(PEPPER, "s" * 43), **ends))
    expiring, revoked = (f"hm2_{digit * 16}_{'s' * 43}" for digit in "01")
    assert await desk.refused(revoked + form.check(revoked)) == "The API key has expired, or was revoked."
    assert (await desk.ask(expiring + form.check(expiring))).tenant == "acme"
    desk.clock.now += 10
    assert await desk.refused(expiring + form.check(expiring)) == "The API key has expired, or was revoked."


async def test_a_key_is_looked_up_twice_a_second(desk: Desk, sqlite_database: SqlDatabase) -> None:
    """So that one that goes is refused within one; one that is not there is looked up each time."""
    for _ in range(5):
        await desk.ask(desk.key)
    assert desk.database.asked == 1
    async with sqlite_database._writer.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM api_keys")
    desk.clock.now += 0.5
    assert (await desk.ask(desk.key)).tenant == "acme"
    desk.clock.now += 0.01
    for _ in range(3):
        await desk.refused(desk.key)
    assert desk.database.asked == 4


async def test_keys_that_are_remembered_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was looked up longest ago goes first."""
    monkeypatch.setattr(authentication, "MOST_CACHED", 2)
    keys = [desk.key, await desk.make(), await desk.make()]
    for key in [*keys, keys[1], keys[2], keys[0]]:
        await desk.ask(key)
    assert desk.database.asked == 4
    assert len(desk.service._cache) == 2


async def test_a_known_key_works_for_a_minute_without_the_database(desk: Desk) -> None:
    """And asks for it twice a second; another key has to wait, and neither is called wrong."""
    other = await desk.make()
    await desk.ask(desk.key)
    desk.database.away = True
    for step, asked in ((0.25, 1), (0.5, 2), (0.25, 2), (59, 3)):
        desk.clock.now += step
        assert (await desk.ask(desk.key)).tenant == "acme"
        assert desk.database.asked == asked
    with pytest.raises(Unavailable):
        await desk.ask(other)
    desk.clock.now += 0.1
    with pytest.raises(Unavailable):
        await desk.ask(desk.key)
    desk.database.away = False
    assert (await desk.ask(desk.key)).tenant == "acme"


async def test_the_bootstrap_key_needs_no_database(desk: Desk) -> None:
    """It is the administrator's, and of any form."""
    desk.database.away = True
    assert await desk.ask(BOOTSTRAP_KEY) == Principal("bootstrap", "default", frozenset({"admin"}))
    assert desk.database.asked == 0


async def test_a_slow_answer_is_worth_what_it_was_when_it_was_asked_for(desk: Desk) -> None:
    """A lookup that began before a revocation, and came back after it, does not make the key fresh again."""
    begun, revoked = asyncio.Event(), asyncio.Event()
    reading = desk.database.reading

    @asynccontextmanager
    async def slow() -> AsyncIterator[UnitOfWork]:
        async with reading() as uow:
            key = await uow.keys.find(desk.key[4:20])
            begun.set()
            await revoked.wait()
            desk.clock.now += 0.3
            uow.keys.find = lambda key_id: answered(key)  # type: ignore[method-assign]  # what it saw before
            yield uow

    desk.database.reading = slow  # type: ignore[method-assign]
    asked = asyncio.create_task(desk.ask(desk.key))
    await begun.wait()
    desk.database.reading = reading  # type: ignore[method-assign]
    await KeyService(desk.database, PEPPER, clock=desk.clock).revoke(Minter(), desk.key[4:20])
    revoked.set()
    assert (await asked).tenant == "acme"
    desk.clock.now += 0.21
    await desk.refused(desk.key)


async def answered(key: ApiKey | None) -> ApiKey | None:
    return key


async def test_last_uses_are_written_now_and_then(desk: Desk) -> None:
    """By a writer of their own, every half minute; not by requests, and nothing where nothing was used."""
    rounds, slept = asyncio.Semaphore(0), asyncio.Queue[float]()

    async def sleep(seconds: float) -> None:
        slept.put_nowait(seconds)
        await rounds.acquire()

    desk.service._last_used._sleep = sleep
    with counted() as statements:
        for _ in range(3):
            await desk.ask(desk.key)
    assert [each for each in statements if "UPDATE" in each] == []
    async with desk.service.running():
        assert 24 <= await slept.get() <= 36
        assert await desk.last_used(desk.key) is None
        rounds.release()
        await slept.get()
        assert await desk.last_used(desk.key) == NOW
        with counted() as statements:
            rounds.release()
            await slept.get()
        assert statements == []


async def test_the_last_use_is_written_when_the_service_ends(desk: Desk) -> None:
    """What was used in the meantime is not lost; a refused key was not used."""
    other = await desk.make(expires_in_s=1)
    async with desk.service.running():
        desk.clock.now += 5
        await desk.ask(desk.key)
        await desk.refused(other)
    assert await desk.last_used(desk.key) == NOW + 5
    assert await desk.last_used(other) is None


async def test_a_defect_does_not_end_the_writing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the service's own end; what was used is written the next time."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with desk.service.running():
        await desk.ask(desk.key)
        with monkeypatch.context() as patch:
            patch.setattr("frontend.db.keys.SqlKeys.touch", fail)
            await desk.service._last_used.write()
        assert await desk.last_used(desk.key) is None
    assert await desk.last_used(desk.key) == NOW


async def test_last_uses_wait_for_a_database_that_is_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many of them; the latest counts."""
    monkeypatch.setattr(last_used, "MOST", 2)
    keys = [desk.key, await desk.make(), await desk.make()]
    for key in keys:
        await desk.ask(key)
    desk.database.away = True
    await desk.service._last_used.write()
    desk.clock.now += 1
    await desk.ask(desk.key)
    desk.database.away = False
    await desk.service._last_used.write()
    assert [await desk.last_used(key) for key in keys] == [NOW + 1, NOW, None]


def test_the_pepper_is_made_once_and_is_the_owners_only(tmp_path: Path) -> None:
    """In a home that is made if need be; nothing else is left there."""
    path = tmp_path / "home" / "pepper"
    pepper = read_pepper(path)
    assert len(pepper) == 32
    assert read_pepper(path) == pepper
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_together_have_one_pepper(tmp_path: Path) -> None:
    """Whoever comes first; the others read it."""
    with ProcessPoolExecutor(4) as processes:
        found = set(processes.map(read_pepper, [tmp_path / "pepper"] * 40))
    assert len(found) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "pepper"]


def test_a_damaged_pepper_is_refused(tmp_path: Path) -> None:
    """With its path: no key would work with it."""
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(SettingsError, match="pepper is damaged"):
        read_pepper(tmp_path / "pepper")
