"""Uploaded files, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.conversations import PageRequest
from frontend.domain.documents import FileCounts
from frontend.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from tests.support.database import contents
from tests.support.documents import (
    MOST_BYTES,
    add_files,
    add_store,
    file,
    put_in,
    read_delta,
    read_store,
    told,
    with_chunks,
)
from tests.support.records import EVERYTHING, MOST, NOW


async def test_a_file_is_there_once_it_is_published(database: SqlDatabase) -> None:
    """Not before, in pieces as it came, and as large as it came; no piece is added afterwards."""
    async with database.writing() as uow:
        await uow.files.begin("a", file(size_bytes=0, expires_at=NOW + 9), most_files=MOST, most_bytes=MOST_BYTES)
        await uow.files.add_piece("a", "file_1", 0, b"ab\x00")
        await uow.files.add_piece("a", "file_1", 1, b"c")
        assert await uow.files.find("a", ["file_1"]) == {}
        assert (await uow.files.page("a", EVERYTHING, None)).data == []
        for hidden in (uow.files.get("a", "file_1"), uow.files.piece("a", "file_1", 0)):
            with pytest.raises(NotFound):
                await hidden
        expected = file(size_bytes=4, expires_at=NOW + 9)
        assert await uow.files.publish("a", "file_1", 4, most_bytes=MOST_BYTES) == expected
    async with database.writing() as uow:
        assert await uow.files.get("a", "file_1") == expected
        assert await uow.files.find("a", ["file_1", "file_2", "file_1"]) == {"file_1": expected}
        assert await uow.files.find("a", []) == {}
        assert [await uow.files.piece("a", "file_1", n) for n in range(3)] == [b"ab\x00", b"c", None]
        for late in (
            uow.files.add_piece("a", "file_1", 2, b"d"),
            uow.files.publish("a", "file_1", 5, most_bytes=MOST_BYTES),
            uow.files.add_piece("a", "file_2", 0, b"d"),
            uow.files.publish("a", "file_2", 5, most_bytes=MOST_BYTES),
        ):
            with pytest.raises(NotFound):
                await late


async def test_a_tenant_has_so_many_files_and_bytes(database: SqlDatabase) -> None:
    """What was begun counts with what it has announced, and when it is published with what it is."""
    async with database.writing() as uow:
        await uow.files.begin("a", file("f1", size_bytes=6), most_files=2, most_bytes=10)
        with pytest.raises(QuotaExceeded):
            await uow.files.begin("a", file("f2", size_bytes=5), most_files=2, most_bytes=10)
        await uow.files.begin("a", file("f2", size_bytes=0), most_files=2, most_bytes=10)
        await uow.files.begin("b", file("f2", size_bytes=10), most_files=2, most_bytes=10)
        with pytest.raises(QuotaExceeded):
            await uow.files.begin("a", file("f3", size_bytes=0), most_files=2, most_bytes=10)
        with pytest.raises(QuotaExceeded):
            await uow.files.publish("a", "f2", 5, most_bytes=10)
        await uow.files.publish("a", "f1", 5, most_bytes=10)
        await uow.files.publish("a", "f2", 5, most_bytes=10)
        await uow.files.delete("a", "f1")
        await uow.files.begin("a", file("f3", size_bytes=5), most_files=2, most_bytes=10)


async def test_files_are_paged_by_creation(database: SqlDatabase) -> None:
    """Both ways, also of one purpose."""
    for name, created_at, purpose in (("c", 2, "x"), ("b", 2, "y"), ("a", 1, "y"), ("d", 3, "y")):
        await add_files(database, name, created_at=created_at, purpose=purpose)
    async with database.reading() as uow:
        everything = await uow.files.page("a", PageRequest(limit=3, order="desc"), None)
        assert ([each.id for each in everything.data], everything.has_more) == (["d", "c", "b"], True)
        page = await uow.files.page("a", PageRequest(after="a", limit=1, order="asc"), "y")
        assert ([each.id for each in page.data], page.has_more) == (["b"], True)
        with pytest.raises(InvalidRequest) as caught:
            await uow.files.page("a", PageRequest(after="c", limit=1, order="asc"), "y")
        assert caught.value.param == "after"


async def test_a_deleted_file_leaves_nothing(database: SqlDatabase, database_url: str) -> None:
    """Not one row of it: pieces, entries in stores, chunks, vectors. What it leaves are two numbers in each log."""
    await with_chunks(database, {"file_2": ["kept"], "file_1": ["one", "two"]})
    await add_store(database, "vs_2")
    await put_in(database, "file_1", store_id="vs_2")
    async with database.writing() as uow:
        await uow.files.delete("a", "file_1")
        with pytest.raises(NotFound):
            await uow.files.delete("a", "file_1")
    left = await contents(database_url)
    for table in ("files", "file_pieces", "vector_store_files", "chunks", "chunk_vectors"):
        assert len(left[table]) == 1, table
        assert "file_1" not in repr(left[table])
    assert told(await read_delta(database, 3)) == ([(2, 3)], [], 4)
    assert (await read_store(database)).counts == FileCounts(completed=1)
    empty = await read_store(database, "vs_2")
    assert (empty.head, empty.counts) == (0, FileCounts())


async def test_an_upload_that_was_given_up_can_be_deleted(database: SqlDatabase, database_url: str) -> None:
    """With the pieces that came."""
    async with database.writing() as uow:
        await uow.files.begin("a", file(), most_files=MOST, most_bytes=MOST_BYTES)
        await uow.files.add_piece("a", "file_1", 0, b"ab")
        await uow.files.delete("a", "file_1")
    left = await contents(database_url)
    assert left["files"] == left["file_pieces"] == set()


async def test_files_expire(database: SqlDatabase) -> None:
    """Of all tenants, out of their stores too; so do uploads that never came to their end. Not more than asked for."""
    await with_chunks(database, {"file_1": ["kept"]})
    await add_files(database, "file_2", expires_at=NOW + 10)
    await put_in(database, "file_2")
    await add_files(database, "file_3", tenant="b", expires_at=NOW + 11)
    async with database.writing() as uow:
        await uow.files.begin("b", file("begun"), most_files=MOST, most_bytes=MOST_BYTES)
        assert await uow.files.delete_expired(NOW + 9, NOW, 10) == 0
        assert await uow.files.delete_expired(NOW + 10, NOW, 10) == 1
        assert await uow.files.delete_expired(NOW + 11, NOW + 1, 1) == 1
        assert await uow.files.delete_expired(NOW + 11, NOW + 1, 1) == 1
        assert await uow.files.delete_expired(NOW + 11, NOW + 1, 1) == 0
        assert [each.id for each in (await uow.files.page("a", EVERYTHING, None)).data] == ["file_1"]
        assert (await uow.files.page("b", EVERYTHING, None)).data == []
    assert (await read_store(database)).counts == FileCounts(completed=1)
