"""Conversations and their items, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.conversations import ContextSettings, ExpiresAfter, PageRequest, Trim
from frontend.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from tests.support.database import contents, counted
from tests.support.records import (
    EVERYTHING,
    ITEMS,
    MOST,
    NOW,
    completed,
    conversation,
    deltas,
    message,
    messages,
    response,
    sequence,
    session,
    turn,
    with_items,
)


async def test_a_conversation_comes_back_as_it_was(database: SqlDatabase) -> None:
    """With every field."""
    full = conversation(
        metadata={"a": "1", "ü": ""},
        expires_after=ExpiresAfter(anchor="last_active_at", seconds=60),
        context=ContextSettings(memory=False, budget_tokens=512),
        profile="agent",
        trim=Trim(upto=3, summary="said", summarised_upto=2),
    )
    async with database.writing() as uow:
        await uow.conversations.add("a", full, MOST)
    async with database.reading() as uow:
        assert await uow.conversations.get("a", "conv_1") == full
        with pytest.raises(NotFound):
            await uow.conversations.get("a", "conv_2")


async def test_a_tenant_has_so_many_conversations(database: SqlDatabase) -> None:
    """One more is refused; another tenant's do not count."""
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation("c1"), 2)
        await uow.conversations.add("a", conversation("c2"), 2)
        await uow.conversations.add("b", conversation("c1"), 2)
    with pytest.raises(QuotaExceeded):
        async with database.writing() as uow:
            await uow.conversations.add("a", conversation("c3"), 2)


async def test_conversations_are_paged_by_creation(database: SqlDatabase) -> None:
    """Both ways, equal times by id; `has_more` is true until the last page; the cursor is the last id."""
    async with database.writing() as uow:
        for name, created_at in [("d", 3), ("b", 2), ("c", 2), ("a", 1), ("e", 5_000_000_000)]:
            await uow.conversations.add("a", conversation(name, created_at=created_at), MOST)
    async with database.reading() as uow:
        for order, expected in (("asc", "abcde"), ("desc", "edcba")):
            seen, after, more = "", None, True
            while more:
                request = PageRequest(after=after, limit=2, order="asc" if order == "asc" else "desc")
                page = await uow.conversations.page("a", request, {}, NOW)
                seen += "".join(each.id for each in page.data)
                after, more = page.data[-1].id, page.has_more
            assert seen == expected
        with pytest.raises(InvalidRequest) as caught:
            await uow.conversations.page("a", PageRequest(after="x", limit=2, order="asc"), {}, NOW)
        assert caught.value.param == "after"


async def test_conversations_are_found_by_their_metadata(database: SqlDatabase) -> None:
    """All entries must be there; a key may hold any character."""
    odd = """a"b'c.d[0]$ %"""
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation("c1", metadata={"x": "1", odd: "ü"}), MOST)
        await uow.conversations.add("a", conversation("c2", metadata={"x": "1", "0": "2"}), MOST)
        await uow.conversations.add("a", conversation("c3", metadata={}), MOST)
    async with database.reading() as uow:

        async def found(**metadata: str) -> list[str]:
            return [each.id for each in (await uow.conversations.page("a", EVERYTHING, metadata, NOW)).data]

        assert await found() == ["c1", "c2", "c3"]
        assert await found(x="1") == ["c1", "c2"]
        assert await found(x="1", **{odd: "ü"}) == ["c1"]
        assert await found(**{"0": "2"}) == ["c2"]
        assert await found(x="2") == await found(y="1") == await found(**{"x": "1", "0": "3"}) == []


async def test_a_search_begins_with_its_labels(sqlite_database: SqlDatabase, tmp_path: Path) -> None:
    """And reads them in their order: SQLite, left to itself, goes through all conversations of the tenant, and sorts."""
    async with sqlite_database.reading() as uow:
        with counted() as statements:
            await uow.conversations.page("a", EVERYTHING, {"x": "1", "y": "2"}, NOW)
    with closing(sqlite3.connect(tmp_path / "hermes2.db")) as file:
        plan = file.execute(f"EXPLAIN QUERY PLAN {statements[0]}", [None] * statements[0].count("?")).fetchall()
    steps = [str(step).split(" (")[0].split() for *_, step in plan]
    assert [(step[0], step[1]) for step in steps] == [
        ("SEARCH", each) for each in ("label_0", "label_1", "conversations")
    ]


async def test_what_is_found_follows_each_change(database: SqlDatabase) -> None:
    """An update takes old entries away; of the deleted, and of another tenant's, nothing is found."""
    async with database.writing() as uow:
        for tenant, name in (("a", "c1"), ("a", "c2"), ("b", "c1")):
            await uow.conversations.add(tenant, conversation(name, metadata={"x": "1", "y": "2"}), MOST)
        await uow.conversations.update("a", conversation("c1", metadata={"x": "3"}))

        async def found(tenant: str, **metadata: str) -> list[str]:
            return [each.id for each in (await uow.conversations.page(tenant, EVERYTHING, metadata, NOW)).data]

        assert (await found("a", x="1"), await found("a", y="2"), await found("a", x="3")) == (["c2"], ["c2"], ["c1"])
        assert await found("b", y="2", x="1") == ["c1"]
        await uow.conversations.delete("a", "c2")
        assert (await found("a", x="1"), await found("b", x="1")) == ([], ["c1"])


async def test_pages_of_what_is_found(database: SqlDatabase) -> None:
    """In the order of their making, in both directions, and with a cursor that must be among them."""
    async with database.writing() as uow:
        for number in range(9):
            metadata = {"all": "", "third": str(number % 3)}
            await uow.conversations.add(
                "a", conversation(f"c{number}", metadata=metadata, created_at=number // 2), MOST
            )
    async with database.reading() as uow:

        async def page(after: str | None, order: Literal["asc", "desc"]) -> tuple[list[str], bool]:
            wanted = PageRequest(after=after, limit=2, order=order)
            found = await uow.conversations.page("a", wanted, {"all": "", "third": "1"}, NOW)
            return [each.id for each in found.data], found.has_more

        assert (await page(None, "asc"), await page("c4", "asc")) == ((["c1", "c4"], True), (["c7"], False))
        assert (await page(None, "desc"), await page("c4", "desc")) == ((["c7", "c4"], True), (["c1"], False))
        with pytest.raises(InvalidRequest):
            await page("c3", "asc")


async def test_an_update_leaves_items_version_and_trim_alone(database: SqlDatabase) -> None:
    """However old the conversation is that it was made of."""
    await with_items(database)
    old = conversation(metadata={"a": "1"}, profile="agent", context=ContextSettings(trim=False))
    async with database.writing() as uow:
        grown = await uow.conversations.append("a", "conv_1", ITEMS, now=NOW + 9, most=MOST)
        await uow.conversations.update("a", old)
        expected = msgspec.structs.replace(grown, metadata=old.metadata, profile="agent", context=old.context)
        assert await uow.conversations.get("a", "conv_1") == expected
        with pytest.raises(NotFound):
            await uow.conversations.update("a", conversation("conv_2"))


async def test_a_trim_replaces_the_one_it_was_made_from(database: SqlDatabase) -> None:
    """And no other: who comes second gets None, and has changed nothing."""
    await with_items(database)
    first, second = Trim(upto=2), Trim(upto=2, summary="s", summarised_upto=2)
    async with database.writing() as uow:
        trimmed = await uow.conversations.set_trim("a", "conv_1", Trim(), first)
        assert trimmed is not None
        assert (trimmed.trim, trimmed.version) == (first, 1)
        assert await uow.conversations.set_trim("a", "conv_1", Trim(), second) is None
        again = await uow.conversations.set_trim("a", "conv_1", first, second)
        assert again is not None
        assert (again.trim, again.version) == (second, 2)
        assert await uow.conversations.get("a", "conv_1") == again
        with pytest.raises(NotFound):
            await uow.conversations.set_trim("a", "conv_2", Trim(), first)


async def test_appended_items_get_the_next_numbers(database: SqlDatabase) -> None:
    """From 1 on, without gaps; the conversation tells its head, its version, and when it was used."""
    await with_items(database)
    async with database.writing() as uow:
        await uow.conversations.append("a", "conv_1", ITEMS[:2], now=NOW + 1, most=len(ITEMS))
        grown = await uow.conversations.append("a", "conv_1", ITEMS[2:], now=NOW + 2, most=len(ITEMS))
        assert (grown.head, grown.version, grown.last_active_at) == (len(ITEMS), 2, NOW + 2)
        with pytest.raises(QuotaExceeded):
            await uow.conversations.append("a", "conv_1", messages("i9"), now=NOW, most=len(ITEMS))
        with pytest.raises(NotFound):
            await uow.conversations.append("a", "conv_2", messages("i9"), now=NOW, most=len(ITEMS))
    async with database.reading() as uow:
        stored = await uow.items.behind("a", "conv_1", 0)
        assert [each.item for each in stored] == ITEMS
        assert [each.seq for each in stored] == list(range(1, len(ITEMS) + 1))
        assert [each.response_id for each in stored] == [None] * len(ITEMS)
        assert [each.created_at for each in stored] == [NOW + 1] * 2 + [NOW + 2] * (len(ITEMS) - 2)
        assert await uow.conversations.get("a", "conv_1") == grown


async def test_a_deleted_conversation_leaves_nothing(database: SqlDatabase, database_url: str) -> None:
    """Not one row of it in any table: items, those of failed responses too, responses, events, sessions, turns."""
    before = await contents(database_url)
    await with_items(database, "i1")
    async with database.writing() as uow:
        await uow.sessions.add("a", session(), MOST)
        await uow.turns.begin(turn("resp_3"), NOW)
        for name, status in (("resp_1", "completed"), ("resp_2", "failed"), ("resp_3", "in_progress")):
            await uow.responses.add("a", response(name, conversation_id="conv_1"), messages(f"in_{name}"))
            await uow.responses.add_events("a", name, deltas(0, 3))
            if status != "in_progress":
                ended = completed(name, status=status, conversation_id="conv_1", output=messages(f"out_{name}"))
                assert await uow.responses.end("a", ended)
    assert await sequence(database) == [(1, "i1"), (2, "in_resp_1"), (3, "out_resp_1")]
    async with database.writing() as uow:
        await uow.conversations.delete("a", "conv_1")
        with pytest.raises(NotFound):
            await uow.conversations.delete("a", "conv_1")
    after = await contents(database_url)
    assert {row[0] for row in after.pop("tenants")} == {"a"}
    assert after == {table: rows for table, rows in before.items() if table != "tenants"}


async def test_conversations_expire(database: SqlDatabase) -> None:
    """From their anchor, of all tenants, oldest first and not more at once than was asked for."""
    last_active = ExpiresAfter(anchor="last_active_at", seconds=10)
    created = ExpiresAfter(anchor="created_at", seconds=20)
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation("used", expires_after=last_active), MOST)
        await uow.conversations.add("a", conversation("unused", expires_after=last_active), MOST)
        await uow.conversations.add("b", conversation("short", expires_after=created), MOST)
        await uow.conversations.add("a", conversation("changed"), MOST)
        await uow.conversations.add("a", conversation("freed", expires_after=created), MOST)
        await uow.conversations.append("a", "used", messages("i1"), now=NOW + 15, most=MOST)
        await uow.conversations.append("a", "changed", messages("i1"), now=NOW + 5, most=MOST)
        await uow.conversations.update("a", conversation("changed", expires_after=last_active))
        await uow.conversations.update("a", conversation("freed"))
        assert len(await uow.conversations.delete_expired(NOW + 9, 10)) == 0
        assert len(await uow.conversations.delete_expired(NOW + 20, 2)) == 2
        kept = [each.id for each in (await uow.conversations.page("a", EVERYTHING, {}, NOW)).data]
        assert kept == ["freed", "used"]
        assert len(await uow.conversations.delete_expired(NOW + 20, 2)) == 1
        assert (await uow.conversations.page("b", EVERYTHING, {}, NOW)).data == []
        assert len(await uow.conversations.delete_expired(NOW + 25, 2)) == 1
        assert len(await uow.conversations.delete_expired(NOW + 10**9, 2)) == 0


async def test_items_are_read_from_either_end(database: SqlDatabase) -> None:
    """Behind a number, the first few, one by its id."""
    await with_items(database, "i1", "i2", "i3")
    async with database.reading() as uow:
        assert [each.seq for each in await uow.items.behind("a", "conv_1", 1)] == [2, 3]
        assert await uow.items.behind("a", "conv_1", 3) == []
        assert [each.seq for each in await uow.items.leading("a", "conv_1", 2)] == [1, 2]
        found = await uow.items.get("a", "conv_1", "i2")
        assert (found.seq, found.item) == (2, message("i2"))
        with pytest.raises(NotFound):
            await uow.items.get("a", "conv_1", "i4")
        for read in (uow.items.behind("a", "conv_2", 0), uow.items.leading("a", "conv_2", 2)):
            with pytest.raises(NotFound):
                await read


async def test_items_are_paged_by_their_number(database: SqlDatabase) -> None:
    """Both ways; a cursor that is not in the conversation is refused."""
    await with_items(database, "i9", "i1", "i5")
    async with database.reading() as uow:
        first = await uow.items.page("a", "conv_1", PageRequest(limit=2, order="desc"))
        assert ([each.seq for each in first.data], first.has_more) == ([3, 2], True)
        rest = await uow.items.page("a", "conv_1", PageRequest(after="i1", limit=2, order="desc"))
        assert ([each.seq for each in rest.data], rest.has_more) == ([1], False)
        with pytest.raises(InvalidRequest) as caught:
            await uow.items.page("a", "conv_1", PageRequest(after="i2", limit=2, order="asc"))
        assert caught.value.param == "after"
        with pytest.raises(NotFound):
            await uow.items.page("a", "conv_2", EVERYTHING)


async def test_items_are_found_wherever_they_are(database: SqlDatabase) -> None:
    """In conversations and in responses; what is unknown is left out. One id may stand twice."""
    await with_items(database, "i1")
    async with database.writing() as uow:
        await uow.responses.add("a", response(), messages("i1", "i2"))
        assert await uow.items.find("a", ["i1", "i2", "i3"]) == {"i1": message("i1"), "i2": message("i2")}
        assert await uow.items.find("a", []) == {}


async def test_a_deleted_item_leaves_its_number_behind(database: SqlDatabase) -> None:
    """It is never used again, the version rises, and there is room for another item."""
    await with_items(database, "i1", "i2", "i3")
    async with database.writing() as uow:
        changed = await uow.items.delete("a", "conv_1", "i3")
        assert (changed.head, changed.version) == (3, 2)
        await uow.conversations.append("a", "conv_1", messages("i4"), now=NOW, most=3)
    assert await sequence(database) == [(1, "i1"), (2, "i2"), (4, "i4")]
    for conversation_id, item_id in (("conv_1", "i3"), ("conv_2", "i1")):
        with pytest.raises(NotFound):
            async with database.writing() as uow:
                await uow.items.delete("a", conversation_id, item_id)
    async with database.reading() as uow:
        assert (await uow.conversations.get("a", "conv_1")).version == 3
