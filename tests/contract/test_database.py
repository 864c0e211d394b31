"""What frontend/domain/storage.py promises, kept by SQLite and by a real PostgreSQL alike: units of work, chat completions,
sessions.

Keys and the audit log: test_database_keys; conversations and their items: test_database_conversations; responses:
test_database_responses; turns, and what happens at the same time: test_database_turns; other tenants:
test_database_tenants; failures: test_database_away.
"""

from __future__ import annotations

import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.conversations import PageRequest
from frontend.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from frontend.domain.storage import Database
from tests.support.database import contents
from tests.support.records import (
    MOST,
    NOW,
    completion,
    messages,
    sequence,
    session,
    turn,
    with_items,
)


async def test_it_answers(database: SqlDatabase) -> None:
    """It is what the services ask for, and says that it is there."""
    assert isinstance(database, Database)
    assert await database.check()


async def test_what_raises_changes_nothing(database: SqlDatabase, database_url: str) -> None:
    """An exception out of a unit of work takes back all that was done in it."""
    await with_items(database, "i1")
    before = await contents(database_url)

    async def fail() -> None:
        async with database.writing() as uow:
            await uow.conversations.append("a", "conv_1", messages("i2"), now=NOW, most=MOST)
            await uow.turns.begin(turn(), NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await contents(database_url) == before


async def test_a_reading_unit_is_one_snapshot(database: SqlDatabase) -> None:
    """What is committed while it reads, it does not see."""
    await with_items(database, "i1")
    async with database.reading() as uow:
        assert (await uow.conversations.get("a", "conv_1")).head == 1
        async with database.writing() as other:
            await other.conversations.append("a", "conv_1", messages("i2"), now=NOW, most=MOST)
        assert len(await uow.items.behind("a", "conv_1", 0)) == 1
        assert (await uow.conversations.get("a", "conv_1")).head == 1
    assert await sequence(database) == [(1, "i1"), (2, "i2")]


async def test_completions_are_kept_as_they_were(database: SqlDatabase) -> None:
    """And paged by creation, of one model, with some metadata."""
    async with database.writing() as uow:
        for n in range(1, 6):
            await uow.completions.add(
                "a", completion(f"c{n}", created_at=n, model=f"m{n % 2}", metadata={"n": str(n), "odd": str(n % 2)})
            )
    async with database.reading() as uow:
        assert (await uow.completions.get("a", "c1")).metadata == {"n": "1", "odd": "1"}
        page = await uow.completions.page(
            "a", PageRequest(after="c1", limit=1, order="asc"), model="m1", metadata={"odd": "1"}
        )
        assert ([each.id for each in page.data], page.has_more) == (["c3"], True)
        everything = await uow.completions.page("a", PageRequest(limit=5, order="desc"), model=None, metadata={})
        assert ([each.id for each in everything.data], everything.has_more) == (["c5", "c4", "c3", "c2", "c1"], False)
        with pytest.raises(InvalidRequest):
            await uow.completions.page("a", PageRequest(after="c2", limit=1, order="asc"), model="m1", metadata={})


async def test_a_completions_metadata_changes_with_its_body(database: SqlDatabase) -> None:
    """Nothing else does; and it can be deleted, once."""
    async with database.writing() as uow:
        await uow.completions.add("a", completion(messages=b"[1]"))
        expected = completion(messages=b"[1]", metadata={"k": "v"}, body=b'{"x":1}')
        assert await uow.completions.set_metadata("a", "chatcmpl-1", {"k": "v"}, b'{"x":1}') == expected
        assert await uow.completions.get("a", "chatcmpl-1") == expected
        found = await uow.completions.page("a", PageRequest(limit=5, order="desc"), model=None, metadata={"k": "v"})
        assert found.data == [expected]
        await uow.completions.delete("a", "chatcmpl-1")
        for gone in (uow.completions.delete("a", "chatcmpl-1"), uow.completions.get("a", "chatcmpl-1")):
            with pytest.raises(NotFound):
                await gone
        with pytest.raises(NotFound):
            await uow.completions.set_metadata("a", "chatcmpl-1", {}, b"{}")


async def test_a_session_is_touched_and_ends(database: SqlDatabase) -> None:
    """When it was not used for its idle time, or at its absolute end."""
    await with_items(database)
    async with database.writing() as uow:
        await uow.sessions.add("a", session("idle", metadata={"k": "v"}), MOST)
        await uow.sessions.add("a", session("used"), MOST)
        await uow.sessions.add("a", session("short", expires_at=NOW + 5), MOST)
        await uow.sessions.touch("a", "used", NOW + 50)
        await uow.sessions.touch("a", "short", NOW + 4)
        assert (await uow.sessions.get("a", "idle")) == session("idle", metadata={"k": "v"})
        assert (await uow.sessions.get("a", "used")) == session("used", last_used_at=NOW + 50)
        assert await uow.sessions.delete_expired(NOW + 4, 10) == 0
        assert await uow.sessions.delete_expired(NOW + 5, 10) == 1
        assert await uow.sessions.delete_expired(NOW + 60, 10) == 1
        assert (await uow.sessions.get("a", "used")).id == "used"
        assert await uow.sessions.delete_expired(NOW + 110, 10) == 1
        for gone in (
            uow.sessions.get("a", "used"),
            uow.sessions.touch("a", "used", 1),
            uow.sessions.delete("a", "used"),
        ):
            with pytest.raises(NotFound):
                await gone


async def test_sessions_are_counted_and_belong_to_a_conversation(database: SqlDatabase) -> None:
    """So many of a tenant, and none of a conversation that is not there; expiry goes in steps."""
    await with_items(database)
    async with database.writing() as uow:
        await uow.sessions.add("a", session("s1"), 2)
        await uow.sessions.add("a", session("s2"), 2)
        with pytest.raises(QuotaExceeded):
            await uow.sessions.add("a", session("s3"), 2)
        await uow.sessions.delete("a", "s1")
        await uow.sessions.add("a", session("s3"), 2)
        assert [await uow.sessions.delete_expired(NOW + 600, 1) for _ in range(3)] == [1, 1, 0]
    with pytest.raises(NotFound):
        async with database.writing() as uow:
            await uow.sessions.add("a", session("s4", "conv_2"), 2)
