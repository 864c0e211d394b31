"""Vector stores, their files and batches, on SQLite and PostgreSQL alike. Their logs: test_database_logs; jobs:
test_database_ingest."""

from __future__ import annotations

import msgspec
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.conversations import ExpiresAfter, PageRequest
from frontend.domain.documents import Chunking, FileCounts, IngestError
from frontend.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from tests.support.database import contents, counted
from tests.support.documents import (
    MOST_BYTES,
    OTHER_PIN,
    PIN,
    add_files,
    add_store,
    batch,
    chunks,
    claim,
    file,
    memory,
    publish,
    put_in,
    read_delta,
    read_store,
    store,
    store_file,
    told,
    with_chunks,
)
from tests.support.records import EVERYTHING, MOST, NOW, conversation, with_items


async def test_a_store_comes_back_as_it_was(database: SqlDatabase) -> None:
    """With every field."""
    full = store(
        name="n",
        description="d",
        metadata={"k": "v"},
        expires_after=ExpiresAfter(anchor="last_active_at", seconds=60),
        embedding=OTHER_PIN,
    )
    async with database.writing() as uow:
        await uow.vector_stores.add("a", full, MOST)
        assert await uow.vector_stores.get("a", "vs_1") == full
        assert (await uow.vector_stores.page("a", EVERYTHING)).data == [full]
        with pytest.raises(NotFound):
            await uow.vector_stores.get("a", "vs_2")


async def test_a_tenant_has_so_many_stores(database: SqlDatabase) -> None:
    """Memories are not among them."""
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation(), MOST)
        await uow.vector_stores.add("a", memory(), 1)
        await uow.vector_stores.add("a", store(), 1)
        await uow.vector_stores.add("b", store(), 1)
        with pytest.raises(QuotaExceeded):
            await uow.vector_stores.add("a", store("vs_2"), 1)


async def test_a_conversation_has_one_memory(database: SqlDatabase, database_url: str) -> None:
    """Which no list of stores shows, and no method for stores reaches. It goes with the conversation, log and all."""
    before = await contents(database_url)
    await with_items(database, "i1")
    async with database.writing() as uow:
        assert await uow.vector_stores.memory("a", "conv_1") is None
        await uow.vector_stores.add("a", memory("m1"), 0)
        await uow.vector_stores.add("a", memory("m2"), 0)
        assert await uow.vector_stores.memory("a", "conv_1") == memory("m1")
        assert await uow.chunks.append("a", "m1", chunks("x", "y")) == 2
        assert (await uow.vector_stores.page("a", EVERYTHING)).data == []
        for hidden in (
            uow.vector_stores.get("a", "m1"),
            uow.vector_stores.update("a", store("m1")),
            uow.vector_stores.touch("a", "m1", NOW),
            uow.vector_stores.delete("a", "m1"),
            uow.store_files.page("a", "m1", EVERYTHING, status=None, batch_id=None),
            uow.store_files.add("a", "m1", [], most=MOST, most_waiting=MOST),
        ):
            with pytest.raises(NotFound):
                await hidden
    with pytest.raises(NotFound):
        async with database.writing() as uow:
            await uow.vector_stores.add("a", memory("m3", "conv_2"), 0)
    async with database.writing() as uow:
        await uow.conversations.delete("a", "conv_1")
        assert await uow.vector_stores.memory("a", "conv_1") is None
    assert {table: rows for table, rows in (await contents(database_url)).items() if table != "tenants"} == {
        table: rows for table, rows in before.items() if table != "tenants"
    }


async def test_stores_are_paged_with_their_counts(database: SqlDatabase) -> None:
    """By creation, with as many statements for a hundred as for one."""
    await with_chunks(database, {"file_1": ["one"]}, created_at=NOW + 200)
    for n in range(50):
        await add_store(database, f"vs_{n:03}", created_at=NOW + n)
    await put_in(database, "file_1", store_id="vs_049")
    async with database.reading() as uow:
        statements = []
        for limit in (1, 100):
            with counted() as run:
                page = await uow.vector_stores.page("a", PageRequest(limit=limit, order="desc"))
            statements.append(len(run))
        assert statements == [2, 2]
        assert [each.id for each in page.data][:3] == ["vs_1", "vs_049", "vs_048"]
        assert [each.counts for each in page.data][:3] == [
            FileCounts(completed=1),
            FileCounts(in_progress=1),
            FileCounts(),
        ]
        assert [each.usage_bytes for each in page.data][:2] == [10, 0]
        after = await uow.vector_stores.page("a", PageRequest(after="vs_002", limit=2, order="desc"))
        assert ([each.id for each in after.data], after.has_more) == (["vs_001", "vs_000"], False)


async def test_an_update_leaves_the_log_alone(database: SqlDatabase) -> None:
    """However old the store is that it was made of."""
    await with_chunks(database, {"file_1": ["one"]})
    old = store(
        name="new", description="d", metadata={"k": "v"}, expires_after=ExpiresAfter(anchor="created_at", seconds=5)
    )
    async with database.writing() as uow:
        await uow.vector_stores.update("a", old)
        expected = msgspec.structs.replace(old, head=1, counts=FileCounts(completed=1), usage_bytes=10)
        assert await uow.vector_stores.get("a", "vs_1") == expected
        with pytest.raises(NotFound):
            await uow.vector_stores.update("a", store("vs_2"))


async def test_stores_expire(database: SqlDatabase) -> None:
    """From their creation or their last use, of all tenants; the files stay."""
    await with_chunks(database, {"file_1": ["one"]}, expires_after=ExpiresAfter(anchor="created_at", seconds=10))
    used = ExpiresAfter(anchor="last_active_at", seconds=10)
    await add_store(database, "used", "b", expires_after=used)
    await add_store(database, "freed", "b", expires_after=used)
    async with database.writing() as uow:
        await uow.vector_stores.touch("b", "used", NOW + 5)
        await uow.vector_stores.touch("a", "vs_1", NOW + 5)
        await uow.vector_stores.update("b", store("freed"))
        assert (await uow.vector_stores.get("b", "used")).expires_at == NOW + 15
        assert await uow.vector_stores.delete_expired(NOW + 9, 10) == []
        assert await uow.vector_stores.delete_expired(NOW + 20, 1) == [("a", "vs_1")]
        assert await uow.vector_stores.delete_expired(NOW + 20, 10) == [("b", "used")]
        assert await uow.vector_stores.delete_expired(NOW + 10**6, 10) == []
        assert (await uow.files.get("a", "file_1")).id == "file_1"
        with pytest.raises(NotFound):
            await uow.vector_stores.touch("a", "vs_1", NOW)


async def test_a_deleted_store_leaves_only_the_files(database: SqlDatabase, database_url: str) -> None:
    """No entry, batch, chunk, vector or removal."""
    await add_files(database, "file_1", "file_2")
    before = await contents(database_url)
    await add_store(database)
    async with database.writing() as uow:
        await uow.file_batches.add("a", batch())
    await put_in(database, "file_1", "file_2", batch_id="vsfb_1")
    for job in await claim(database):
        assert await publish(database, job, chunks("x", "y"))
    async with database.writing() as uow:
        await uow.store_files.remove("a", "vs_1", "file_1")
        await uow.vector_stores.delete("a", "vs_1")
        with pytest.raises(NotFound):
            await uow.vector_stores.delete("a", "vs_1")
    assert await contents(database_url) == before


async def test_outdated_stores_are_found(database: SqlDatabase) -> None:
    """Whichever part of the pin differs, of both kinds and all tenants."""
    await with_items(database)
    await add_store(database, "same", "a")
    await add_store(database, "model", "b", embedding=msgspec.structs.replace(PIN, model="x"))
    await add_store(database, "digest", "a", embedding=msgspec.structs.replace(PIN, digest="x"))
    await add_store(database, "window", "a", embedding=msgspec.structs.replace(PIN, window_tokens=9))
    async with database.writing() as uow:
        await uow.vector_stores.add("a", memory(embedding=OTHER_PIN), MOST)
        found = await uow.vector_stores.outdated(PIN, 10)
        assert sorted((tenant, each.id) for tenant, each in found) == [
            *(("a", name) for name in ("digest", "vs_memory", "window")),
            ("b", "model"),
        ]
        assert len(await uow.vector_stores.outdated(PIN, 2)) == 2


# Files in stores


async def test_a_file_in_a_store_comes_back_as_it_was(database: SqlDatabase) -> None:
    """With every field, and every number of its attributes as a float."""
    await add_files(database, "file_1")
    await add_store(database)
    attributes: dict[str, str | float | bool] = {"s": "ü", "n": 5.0, "large": 1e20, "b": True, "small": 1e-9}
    full = store_file(
        attributes=attributes,
        chunking=Chunking(max_chunk_tokens=100, chunk_overlap_tokens=7),
        batch_id="vsfb_1",
        filename="file_1.txt",
    )
    await put_in(database, "file_1", attributes=attributes, chunking=full.chunking, batch_id="vsfb_1")
    async with database.writing() as uow:
        for read in (
            await uow.store_files.get("a", "vs_1", "file_1"),
            (await uow.store_files.page("a", "vs_1", EVERYTHING, status=None, batch_id=None)).data[0],
        ):
            assert read == full
            assert [type(value) for value in read.attributes.values()].count(float) == 3
        changed = await uow.store_files.set_attributes("a", "vs_1", "file_1", {"s": 1.0})
        assert changed == msgspec.structs.replace(full, attributes={"s": 1.0})
        assert await uow.store_files.get("a", "vs_1", "file_1") == changed
        for unknown in (
            uow.store_files.get("a", "vs_1", "file_2"),
            uow.store_files.get("a", "vs_2", "file_1"),
            uow.store_files.set_attributes("a", "vs_1", "file_2", {}),
            uow.store_files.remove("a", "vs_1", "file_2"),
            uow.store_files.remove("a", "vs_2", "file_1"),
        ):
            with pytest.raises(NotFound):
                await unknown


async def test_only_files_that_are_there_are_put_in(database: SqlDatabase) -> None:
    """None of them if one is not there, or not published, or the store is not there."""
    await add_files(database, "file_1")
    await add_store(database)
    async with database.writing() as uow:
        await uow.files.begin("a", file("begun"), most_files=MOST, most_bytes=MOST_BYTES)
    for names, store_id in ((["file_1", "file_2"], "vs_1"), (["begun"], "vs_1"), (["file_1"], "vs_2"), ([], "vs_2")):
        with pytest.raises(NotFound):
            await put_in(database, *names, store_id=store_id)
    await put_in(database, store_id="vs_1")
    assert (await read_store(database)).counts == FileCounts()


async def test_a_store_holds_so_many_files(database: SqlDatabase) -> None:
    """One that is put in anew counts once; so many of a tenant wait at a time."""
    await add_files(database, "f1", "f2", "f3", "f4")
    await add_store(database)
    await add_store(database, "vs_2")

    async def add(*names: str, store_id: str = "vs_1", most: int = 3, most_waiting: int = 4) -> None:
        async with database.writing() as uow:
            new = [store_file(name, store_id) for name in names]
            await uow.store_files.add("a", store_id, new, most=most, most_waiting=most_waiting)

    await add("f1", "f2", "f1")
    await add("f2", "f3")
    with pytest.raises(QuotaExceeded, match="holds 3"):
        await add("f4")
    with pytest.raises(QuotaExceeded, match="At most 4"):
        await add("f1", "f2", store_id="vs_2")
    await add("f1", store_id="vs_2")
    assert (await read_store(database)).counts == FileCounts(in_progress=3)
    for job in await claim(database):
        assert await publish(database, job, [])
    await add("f1", "f2", store_id="vs_2")
    assert (await read_store(database, "vs_2")).counts == FileCounts(in_progress=2)


async def test_files_of_a_store_are_paged(database: SqlDatabase) -> None:
    """Of one status or one batch too; a cursor whose status has changed since goes on where it was."""
    names = [f"f{n}" for n in range(6)]
    await add_files(database, *names)
    await add_store(database)
    for n, name in enumerate(names):
        await put_in(database, name, created_at=NOW + n, batch_id="vsfb_1" if n % 2 else None)
    (job,) = await claim(database, 1)
    assert await publish(database, job, chunks("x"))
    async with database.reading() as uow:

        async def ids(after: str | None = None, limit: int = 10, **only: str | None) -> list[str]:
            page = PageRequest(after=after, limit=limit, order="asc")
            given = {"status": None, "batch_id": None, **only}
            found = await uow.store_files.page("a", "vs_1", page, **given)  # type: ignore[arg-type]  # a status is a str
            return [each.file_id for each in found.data]

        assert await ids() == names
        assert await ids(batch_id="vsfb_1") == ["f1", "f3", "f5"]
        assert await ids(status="completed") == ["f0"]
        assert await ids(status="in_progress", after="f0", limit=2) == ["f1", "f2"]
        assert await ids(status="failed") == []
        with pytest.raises(InvalidRequest) as caught:
            await ids(after="f0", batch_id="vsfb_1")
        assert caught.value.param == "after"
        with pytest.raises(NotFound):
            await uow.store_files.page("a", "vs_2", EVERYTHING, status=None, batch_id=None)


async def test_counts_are_true_at_every_moment(database: SqlDatabase) -> None:
    """Of a store and of a batch, through every change a file can go through."""
    names = ["f1", "f2", "f3", "f4"]
    await add_files(database, *names)
    await add_store(database)
    async with database.writing() as uow:
        await uow.file_batches.add("a", batch())

    async def counts() -> tuple[FileCounts, FileCounts]:
        async with database.reading() as uow:
            store_counts = (await uow.vector_stores.get("a", "vs_1")).counts
            return store_counts, (await uow.file_batches.get("a", "vs_1", "vsfb_1")).counts

    assert await counts() == (FileCounts(), FileCounts())
    await put_in(database, *names[:3], batch_id="vsfb_1")
    await put_in(database, "f4")
    assert await counts() == (FileCounts(in_progress=4), FileCounts(in_progress=3))
    jobs = {job.file.id: job for job in await claim(database)}
    assert await counts() == (FileCounts(in_progress=4), FileCounts(in_progress=3))
    assert await publish(database, jobs["f1"], chunks("x"))
    async with database.writing() as uow:
        assert await uow.store_files.fail(jobs["f2"], IngestError("invalid_file", "broken"))
        assert (await uow.store_files.get("a", "vs_1", "f2")).error == IngestError("invalid_file", "broken")
    assert await counts() == (
        FileCounts(completed=1, failed=1, in_progress=2),
        FileCounts(completed=1, failed=1, in_progress=1),
    )
    async with database.writing() as uow:
        await uow.file_batches.cancel("a", "vs_1", "vsfb_1")
        assert (await uow.file_batches.get("a", "vs_1", "vsfb_1")).cancelled
        await uow.store_files.remove("a", "vs_1", "f1")
    assert await counts() == (FileCounts(cancelled=1, failed=1, in_progress=1), FileCounts(cancelled=1, failed=1))
    async with database.writing() as uow:
        await uow.files.delete("a", "f2")
        for unknown in (
            uow.file_batches.get("a", "vs_1", "vsfb_2"),
            uow.file_batches.get("a", "vs_2", "vsfb_1"),
            uow.file_batches.cancel("a", "vs_1", "vsfb_2"),
            uow.file_batches.cancel("a", "vs_2", "vsfb_1"),
        ):
            with pytest.raises(NotFound):
                await unknown
    assert await counts() == (FileCounts(cancelled=1, in_progress=1), FileCounts(cancelled=1))


async def test_a_file_that_is_put_in_anew_begins_anew(database: SqlDatabase) -> None:
    """What there was of it is removed; it has a job, and no error, range or batch of before."""
    await with_chunks(database, {"file_1": ["one", "two"], "file_2": ["three"]})
    await put_in(database, "file_1", attributes={"k": "v"}, created_at=NOW + 1)
    async with database.reading() as uow:
        again = await uow.store_files.get("a", "vs_1", "file_1")
    assert again == store_file(attributes={"k": "v"}, created_at=NOW + 1, filename="file_1.txt")
    assert told(await read_delta(database, 3)) == ([(1, 2)], [], 4)
    (job,) = await claim(database)
    assert job.attempt == 1
    assert await publish(database, job, chunks("four"))
    assert told(await read_delta(database, 0)) == ([], [(3, "three"), (5, "four")], 5)


async def test_a_batch_comes_back_as_it_was(database: SqlDatabase) -> None:
    """And belongs to a store that is there."""
    await add_store(database)
    async with database.writing() as uow:
        await uow.file_batches.add("a", batch())
        assert await uow.file_batches.get("a", "vs_1", "vsfb_1") == batch()
    with pytest.raises(NotFound):
        async with database.writing() as uow:
            await uow.file_batches.add("a", batch("vsfb_2", "vs_2"))
