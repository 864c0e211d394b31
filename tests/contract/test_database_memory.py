"""What a memory is made from, and that it goes with what was deleted, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio

import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.errors import NotFound
from tests.support.database import opened
from tests.support.documents import chunks, memory
from tests.support.records import message, with_items


async def test_items_between_two_numbers(database: SqlDatabase) -> None:
    """In order, the first so many of them, across gaps; none of another tenant's."""
    await with_items(database, "i1", "i2", "i3", "i4", "i5")
    async with database.writing() as uow:
        await uow.items.delete("a", "conv_1", "i3")
    async with database.reading() as uow:
        found = await uow.items.between("a", "conv_1", after=1, upto=4, most=10)
        assert [stored.seq for stored in found] == [2, 4]
        found = await uow.items.between("a", "conv_1", after=0, upto=5, most=3)
        assert [(stored.seq, stored.item) for stored in found] == [(n, message(f"i{n}")) for n in (1, 2, 4)]
        assert await uow.items.between("a", "conv_1", after=5, upto=9, most=3) == []
        with pytest.raises(NotFound):
            await uow.items.between("b", "conv_1", after=0, upto=5, most=3)


async def test_a_memory_is_deleted_without_its_conversation(database: SqlDatabase) -> None:
    """With its chunks; where there is none, nothing happens; another tenant has none of it."""
    await with_items(database, "i1")
    async with database.writing() as uow:
        await uow.vector_stores.delete_memory("a", "conv_1")
        await uow.vector_stores.add("a", memory("m1"), 0)
        await uow.chunks.append("a", "m1", chunks("x", "y"))
    async with database.writing() as uow:
        await uow.vector_stores.delete_memory("b", "conv_1")
        assert await uow.chunks.read("a", "m1", [1, 2])
        await uow.vector_stores.delete_memory("a", "conv_1")
    async with database.reading() as uow:
        assert await uow.vector_stores.memory("a", "conv_1") is None
        assert await uow.chunks.read("a", "m1", [1, 2]) == {}
        assert (await uow.conversations.get("a", "conv_1")).item_count == 1


async def test_a_conversation_that_is_held_does_not_change(database_url: str) -> None:
    """Whoever deletes an item meanwhile waits, and finds what was added by then: no deleted text comes back."""
    async with opened(database_url) as one, opened(database_url) as other:
        await with_items(one, "i1")
        held, release = asyncio.Event(), asyncio.Event()

        async def remember() -> None:
            async with one.writing() as uow:
                conversation = await uow.conversations.hold("a", "conv_1")
                assert conversation.item_count == 1
                held.set()
                await release.wait()
                await uow.vector_stores.add("a", memory("m1"), 0)
                await uow.chunks.append("a", "m1", chunks("x"))

        async def delete() -> None:
            await held.wait()
            release.set()
            async with other.writing() as uow:
                await uow.items.delete("a", "conv_1", "i1")
                assert await uow.vector_stores.memory("a", "conv_1") is not None
                await uow.vector_stores.delete_memory("a", "conv_1")

        await asyncio.gather(remember(), delete())
        async with one.reading() as uow:
            assert await uow.vector_stores.memory("a", "conv_1") is None
            assert await uow.chunks.read("a", "m1", [1]) == {}


async def test_what_is_held_is_read_as_it_is(database: SqlDatabase) -> None:
    """And one that is not there is not held."""
    await with_items(database, "i1")
    async with database.writing() as uow:
        held = await uow.conversations.hold("a", "conv_1")
        assert held == await uow.conversations.get("a", "conv_1")
        with pytest.raises(NotFound):
            await uow.conversations.hold("b", "conv_1")
