"""frontend/db/keys and frontend/db/audit on SQLite and on a real PostgreSQL: keys, their ends, and a log that only grows."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import text

from frontend.db.database import SqlDatabase
from frontend.domain.api_keys import ApiKey, AuditEntry
from frontend.domain.conversations import PageRequest
from frontend.domain.errors import Internal, InvalidRequest, NotFound
from frontend.domain.limits import MOST, Limits
from tests.support.database import contents, counted
from tests.support.records import EVERYTHING, NOW, api_key

KEY = "0123456789abcdef"


async def with_keys(database: SqlDatabase, *keys: ApiKey) -> None:
    async with database.writing() as uow:
        for key in keys:
            await uow.keys.ensure_tenant(key.tenant, NOW)
            await uow.keys.add(key.tenant, key)


async def found(database: SqlDatabase, key_id: str = KEY) -> ApiKey:
    async with database.reading() as uow:
        key = await uow.keys.find(key_id)
    assert key is not None
    return key


def entry(action: str = "key.created", **fields: object) -> AuditEntry:
    given = {"at": NOW, "actor": "bootstrap", "action": action, "tenant": "a", "target": KEY}
    return msgspec.convert(given | fields, AuditEntry)


async def test_a_key_is_found_by_its_id(database: SqlDatabase) -> None:
    """With everything that was stored; None for an unknown one. Its tenant may be made twice."""
    plain = api_key()
    full = api_key(
        "fedcba9876543210",
        profile="agent",
        created_by="bootstrap",
        limits=Limits(requests_per_minute=10, tokens_per_minute=0, concurrency=MOST),
        expires_at=NOW + 1,
        revoked_at=NOW + 2,
        last_used_at=NOW + 3,
        replaced_by=KEY,
    )
    await with_keys(database, plain, full)
    assert [await found(database, key.id) for key in (plain, full)] == [plain, full]
    async with database.reading() as uow:
        assert await uow.keys.find("0" * 16) is None


async def test_keys_come_in_pages(database: SqlDatabase) -> None:
    """Of one tenant or of all, by creation, then by id; those that have ended too."""
    keys = [api_key(digit * 16, tenant="ab"[int(digit) % 2], created_at=NOW + int(digit) // 3) for digit in "0123456"]
    await with_keys(database, *keys[:-1], api_key("6" * 16, created_at=NOW + 2, revoked_at=NOW))

    async def page(tenant: str | None, **request: object) -> tuple[str, bool]:
        async with database.reading() as uow:
            asked = msgspec.convert({"limit": 2, "order": "asc", **request}, PageRequest)
            shown = await uow.keys.page(tenant, asked)
        return "".join(key.id[0] for key in shown.data), shown.has_more

    assert await page(None) == ("01", True)
    assert await page(None, after="1" * 16, limit=9) == ("23456", False)
    assert await page("a", order="desc") == ("64", True)
    assert await page("a", order="desc", after="4" * 16) == ("20", False)
    assert await page("nobody") == ("", False)
    with pytest.raises(InvalidRequest):
        await page("b", after="0" * 16)


async def test_an_end_comes_earlier_and_never_later(database: SqlDatabase) -> None:
    """What is not given stays; so does the first revocation, and the first successor."""
    await with_keys(database, api_key())

    async def end(**ends: object) -> tuple[object, ...]:
        async with database.writing() as uow:
            key = await uow.keys.end("a", KEY, **ends)  # type: ignore[arg-type]
        assert key == await found(database)
        return key.expires_at, key.revoked_at, key.replaced_by

    assert await end() == (None, None, None)
    assert await end(expires_at=NOW + 10) == (NOW + 10, None, None)
    assert await end(expires_at=NOW + 20, replaced_by="x") == (NOW + 10, None, "x")
    assert await end(expires_at=NOW + 5, replaced_by="y") == (NOW + 5, None, "x")
    assert await end(revoked_at=NOW + 7) == (NOW + 5, NOW + 7, "x")
    assert await end(revoked_at=NOW + 9) == (NOW + 5, NOW + 7, "x")


async def test_a_key_of_another_tenant_does_not_end(database: SqlDatabase, database_url: str) -> None:
    """Nor is it held: it is missing, as one that nobody has."""
    await with_keys(database, api_key(), api_key("f" * 16, tenant="b"))
    before, messages = await contents(database_url), set()

    async def refused(key_id: str, *, holding: bool) -> str:
        async with database.writing() as uow:
            with pytest.raises(NotFound) as caught:
                await (uow.keys.hold("b", key_id) if holding else uow.keys.end("b", key_id, revoked_at=1))
        return caught.value.message.replace(key_id, "...")

    for key_id in (KEY, "0" * 16):
        messages |= {await refused(key_id, holding=True), await refused(key_id, holding=False)}
    assert len(messages) == 1
    assert await contents(database_url) == before


async def test_a_key_that_is_held_is_changed_by_one_alone(database: SqlDatabase) -> None:
    """Whoever comes second sees what the first did."""
    await with_keys(database, api_key())

    async def replace(successor: str) -> bool:
        async with database.writing() as uow:
            key = await uow.keys.hold("a", KEY)
            if key.replaced_by is not None:
                return False
            await asyncio.sleep(0)
            await uow.keys.end("a", KEY, replaced_by=successor)
            return True

    done = await asyncio.gather(*(replace(str(number)) for number in range(4)))
    assert sum(done) == 1
    assert (await found(database)).replaced_by == str(done.index(True))


async def test_last_uses_are_written_with_one_statement(database: SqlDatabase) -> None:
    """Those that are known; what is later already stays."""
    await with_keys(database, *(api_key(digit * 16) for digit in "0123"), api_key("4" * 16, last_used_at=NOW + 9))
    used = {"0" * 16: NOW + 1, "1" * 16: NOW + 2, "4" * 16: NOW + 3, "f" * 16: NOW}
    with counted() as statements:
        async with database.writing() as uow:
            await uow.keys.touch(used)
    assert len([each for each in statements if "api_keys" in each]) == 1
    async with database.reading() as uow:
        keys = (await uow.keys.page("a", EVERYTHING)).data
    assert [key.last_used_at for key in keys] == [NOW + 1, NOW + 2, None, None, NOW + 9]


async def test_processes_that_write_last_uses_together_do_not_stand_in_each_others_way(database: SqlDatabase) -> None:
    """In whatever order each has them."""
    ids = [f"{number:016x}" for number in range(60)]
    await with_keys(database, *map(api_key, ids))

    async def touch(order: list[str], now: int) -> None:
        async with database.writing() as uow:
            await uow.keys.touch(dict.fromkeys(order, now))

    await asyncio.gather(*(touch(ids if now % 2 else ids[::-1], NOW + now) for now in range(8)))
    assert {(await found(database, key_id)).last_used_at for key_id in ids} == {NOW + 7}


async def test_the_audit_log_is_read_from_its_end(database: SqlDatabase) -> None:
    """Of one tenant or of all, with everything that was written."""
    full = entry("key.revoked", tenant="b", request_id="req_1", client="10.0.0.1", detail={"scopes": ["chat"], "n": 1})
    async with database.writing() as uow:
        for each in (entry("1"), full, entry("2"), entry("3")):
            await uow.audit.add(each)
    async with database.reading() as uow:
        every = await uow.audit.page(None, before=None, limit=10)
        assert [each.action for each in every] == ["3", "2", "key.revoked", "1"]
        assert [each.id for each in every] == sorted((each.id for each in every), reverse=True)
        assert msgspec.structs.replace(every[2], id=0) == full
        assert await uow.audit.page("b", before=None, limit=10) == [every[2]]
        assert await uow.audit.page("a", before=every[1].id, limit=1) == [every[3]]
        assert await uow.audit.page("a", before=every[3].id, limit=1) == []


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'me'", "DELETE FROM audit_log"])
async def test_the_audit_log_only_grows(database: SqlDatabase, database_url: str, statement: str) -> None:
    """The database itself refuses to change or to delete what is there."""
    async with database.writing() as uow:
        await uow.audit.add(entry())
    before = await contents(database_url)
    async with database._writer.connect() as connection:
        with pytest.raises(Exception, match="the audit log only grows"):
            await connection.execute(text(statement))
    assert await contents(database_url) == before


async def test_an_entry_stands_or_falls_with_what_it_tells_of(database: SqlDatabase, database_url: str) -> None:
    """One transaction."""
    before = await contents(database_url)

    async def fail() -> None:
        async with database.writing() as uow:
            await uow.keys.ensure_tenant("a", NOW)
            await uow.keys.add("a", api_key())
            await uow.audit.add(entry())
            raise Internal("It fails.")

    with pytest.raises(Internal):
        await fail()
    assert await contents(database_url) == before
