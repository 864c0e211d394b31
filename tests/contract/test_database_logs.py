"""The logs of stores, which indexes are made of, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import msgspec
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.documents import Comparison, FoundChunk
from frontend.domain.errors import NotFound
from tests.support.database import contents
from tests.support.documents import (
    OTHER_PIN,
    PIN,
    chunks,
    claim,
    memory,
    publish,
    put_in,
    read_delta,
    read_store,
    told,
    vectors,
    with_chunks,
)
from tests.support.records import MOST, conversation

TEXTS = {"f1": ["a", "b", "c"], "f2": ["d", "e"], "f3": ["f"]}


async def remove(database: SqlDatabase, *file_ids: str) -> None:
    for file_id in file_ids:
        async with database.writing() as uow:
            await uow.store_files.remove("a", "vs_1", file_id)


async def test_a_delta_is_what_a_reader_lacks(database: SqlDatabase) -> None:
    """Removals behind where it is, chunks behind it that are still there, and how far that goes."""
    await with_chunks(database, TEXTS)
    assert told(await read_delta(database, 0)) == ([], [*zip(range(1, 7), "abcdef", strict=True)], 6)
    assert told(await read_delta(database, 5)) == ([], [(6, "f")], 6)
    assert told(await read_delta(database, 6)) == ([], [], 6)
    await remove(database, "f2")
    assert told(await read_delta(database, 6)) == ([(4, 5)], [], 7)
    assert told(await read_delta(database, 4)) == ([(4, 5)], [(6, "f")], 7)
    await remove(database, "f1", "f3")
    assert told(await read_delta(database, 6)) == ([(4, 5), (1, 3), (6, 6)], [], 9)
    assert told(await read_delta(database, 8)) == ([(6, 6)], [], 9)
    assert told(await read_delta(database, 0)) == ([], [], 9)


async def test_a_long_delta_comes_in_parts(database: SqlDatabase) -> None:
    """Each says how far it reaches, and none tells of a removal that a later one will tell of."""
    await with_chunks(database, TEXTS)
    await remove(database, "f2")
    assert told(await read_delta(database, 0, 2)) == ([], [(1, "a"), (2, "b")], 2)
    assert told(await read_delta(database, 2, 2)) == ([], [(3, "c"), (6, "f")], 6)
    assert told(await read_delta(database, 6, 2)) == ([(4, 5)], [], 7)


async def test_a_delta_ends_at_the_head_that_was_read(database: SqlDatabase) -> None:
    """What came since is for the next one."""
    await with_chunks(database, {"f1": ["a"], "f2": ["b"]})
    old = msgspec.structs.replace(await read_store(database), head=1)
    async with database.reading() as uow:
        assert told(await uow.chunks.delta("a", old, 0, MOST)) == ([], [(1, "a")], 1)


async def test_numbers_are_not_used_again(database: SqlDatabase) -> None:
    """Not even the last ones, and not when what took them was taken back."""
    await with_chunks(database, {"f1": ["a", "b"]})
    await remove(database, "f1")
    await put_in(database, "f1")
    (job,) = await claim(database)

    async def fail() -> None:
        async with database.writing() as uow:
            assert await uow.store_files.publish(job, chunks("x"), 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await publish(database, job, chunks("c"))
    assert told(await read_delta(database, 0)) == ([], [(4, "c")], 4)


async def test_adjoining_ranges_go_with_one_removal(database: SqlDatabase) -> None:
    """When files are put in anew together."""
    await with_chunks(database, TEXTS)
    await put_in(database, "f2", "f1")
    assert told(await read_delta(database, 6)) == ([(1, 5)], [], 7)


async def test_found_chunks_are_read_again(database: SqlDatabase) -> None:
    """With what is known of their file; those that are gone are missing."""
    await with_chunks(database, TEXTS)
    await remove(database, "f2")
    async with database.writing() as uow:
        await uow.store_files.set_attributes("a", "vs_1", "f1", {"n": 1.0})
        found = await uow.chunks.read("a", "vs_1", [6, 1, 4, 1, 99])
        first = FoundChunk(seq=1, file_id="f1", filename="f1.txt", attributes={"n": 1.0}, text="a", start=0, end=1)
        assert found == {
            1: first,
            6: msgspec.structs.replace(first, seq=6, file_id="f3", filename="f3.txt", attributes={}, text="f"),
        }
        assert await uow.chunks.read("a", "vs_1", []) == {}
        of_file = await uow.chunks.of_file("a", "vs_1", "f1", 1, 1)
        assert [(each.seq, each.text) for each in of_file] == [(2, "b")]
        assert await uow.chunks.of_file("a", "vs_1", "f1", 3, 1) == []
        with pytest.raises(NotFound):
            await uow.chunks.of_file("a", "vs_1", "f2", 0, 1)


async def test_a_memory_grows_at_its_end(database: SqlDatabase) -> None:
    """Its chunks are no file's; a store of documents takes none."""
    await with_chunks(database, {"f1": ["a"]})
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation(), MOST)
        await uow.vector_stores.add("a", memory(), MOST)
        assert await uow.chunks.append("a", "vs_memory", chunks("x", "y")) == 2
        assert await uow.chunks.append("a", "vs_memory", []) == 2
        assert await uow.chunks.append("a", "vs_memory", chunks("z")) == 3
        found = await uow.chunks.read("a", "vs_memory", [3])
        assert found == {3: FoundChunk(seq=3, file_id=None, filename="", attributes={}, text="z", start=0, end=1)}
        now = await uow.vector_stores.memory("a", "conv_1")
        assert now == memory(head=3)
        assert told(await uow.chunks.delta("a", now, 1, MOST)) == ([], [(2, "y"), (3, "z")], 3)
        for wrong in ("vs_1", "vs_2"):
            with pytest.raises(NotFound):
                await uow.chunks.append("a", wrong, chunks("x"))


async def test_filters_become_ranges(database: SqlDatabase) -> None:
    """Of completed files, in order, adjoining ones as one; a changed attribute counts at once."""
    await with_chunks(database, {**TEXTS, "f4": ["g"], "f5": []})
    async with database.writing() as uow:
        for name, colour in (("f1", "red"), ("f2", "red"), ("f3", "blue"), ("f4", "red"), ("f5", "red")):
            await uow.store_files.set_attributes("a", "vs_1", name, {"colour": colour, "n": 1e20})
    await put_in(database, "f5", attributes={"colour": "red"})
    async with database.writing() as uow:
        red = Comparison("eq", "colour", "red")
        assert await uow.chunks.allowed("a", "vs_1", red) == [(1, 5), (7, 7)]
        assert await uow.chunks.allowed("a", "vs_1", Comparison("eq", "n", 1e20)) == [(1, 7)]
        assert await uow.chunks.allowed("a", "vs_1", Comparison("eq", "colour", "green")) == []
        await uow.store_files.set_attributes("a", "vs_1", "f1", {})
        assert await uow.chunks.allowed("a", "vs_1", red) == [(4, 5), (7, 7)]
        assert await uow.chunks.allowed("a", "vs_1", Comparison("ne", "colour", "red")) == [(1, 3), (6, 6)]
        with pytest.raises(NotFound):
            await uow.chunks.allowed("a", "vs_2", red)


async def test_a_vacuum_forgets_old_removals(database: SqlDatabase) -> None:
    """And raises the floor to the newest that it forgot; with nothing to forget it changes nothing."""
    await with_chunks(database, TEXTS)
    await remove(database, "f1", "f2", "f3")
    async with database.writing() as uow:
        await uow.chunks.vacuum("a", "vs_1", 3)
        assert (await uow.vector_stores.get("a", "vs_1")).floor == 0
        await uow.chunks.vacuum("a", "vs_1", 1)
        assert (await uow.vector_stores.get("a", "vs_1")).floor == 8
    assert told(await read_delta(database, 8)) == ([(6, 6)], [], 9)
    async with database.writing() as uow:
        await uow.chunks.vacuum("a", "vs_1", 0)
        assert (await uow.vector_stores.get("a", "vs_1")).floor == 9
        await uow.chunks.vacuum("a", "vs_1", 0)
        with pytest.raises(NotFound):
            await uow.chunks.vacuum("a", "vs_2", 0)


async def test_vectors_are_exchanged_at_once(database: SqlDatabase, database_url: str) -> None:
    """When every chunk has new ones, and not before; the old ones are gone, and readers of the new generation see them."""
    await with_chunks(database, TEXTS)
    await remove(database, "f2")
    new = {seq: vectors(2, OTHER_PIN.dimensions, 0.25) for seq in (1, 2, 4)}
    async with database.writing() as uow:
        await uow.chunks.replace_vectors("a", "vs_1", 1, new)
        await uow.chunks.replace_vectors("a", "vs_1", 1, {})
        assert not await uow.chunks.swap("a", "vs_1", 1, OTHER_PIN)
    assert (await read_store(database)).generation == 0
    assert [each.vectors.tolist() for each in (await read_delta(database, 0)).added] == [vectors().tolist()] * 4
    async with database.writing() as uow:
        new = {seq: vectors(1, OTHER_PIN.dimensions, 0.75) for seq in (1, 3, 6)}
        await uow.chunks.replace_vectors("a", "vs_1", 1, new)
        assert await uow.chunks.swap("a", "vs_1", 1, OTHER_PIN)
        assert not await uow.chunks.swap("a", "vs_1", 1, PIN)
        await uow.chunks.replace_vectors("a", "vs_1", 1, {1: vectors(9)})
    now = await read_store(database)
    assert (now.generation, now.embedding, now.head) == (1, OTHER_PIN, 7)
    got = {each.seq: each.vectors.tolist() for each in (await read_delta(database, 0)).added}
    assert got == {
        1: [[0.75, 0.75]],
        2: [[0.25, 0.25], [0.25, 0.25]],
        3: [[0.75, 0.75]],
        6: [[0.75, 0.75]],
    }
    assert len((await contents(database_url))["chunk_vectors"]) == 4
    async with database.writing() as uow:
        for unknown in (
            uow.chunks.swap("a", "vs_2", 1, OTHER_PIN),
            uow.chunks.replace_vectors("a", "vs_2", 1, {1: vectors()}),
        ):
            with pytest.raises(NotFound):
                await unknown
