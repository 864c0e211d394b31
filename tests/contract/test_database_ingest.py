"""Jobs that put files into stores: who has them, and what is worth nothing any more. On SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.documents import Chunking, FileCounts, IngestError, IngestJob
from frontend.domain.errors import InvalidRequest
from frontend.domain.storage import UnitOfWork
from tests.support.database import contents
from tests.support.documents import (
    OTHER_PIN,
    OWNER,
    PIN,
    add_files,
    add_store,
    batch,
    chunk,
    chunks,
    claim,
    file,
    publish,
    put_in,
    read_delta,
    read_store,
    store_file,
    told,
    vectors,
)
from tests.support.records import FAR, MOST, NOW

BROKEN = IngestError("invalid_file", "broken")


async def with_job(database: SqlDatabase, **fields: Any) -> IngestJob:
    """file_1 in vs_1, claimed."""
    await add_files(database, "file_1")
    await add_store(database)
    async with database.writing() as uow:
        await uow.file_batches.add("a", batch())
    await put_in(database, "file_1", **fields)
    (job,) = await claim(database)
    return job


async def test_a_job_says_all_that_is_needed(database: SqlDatabase) -> None:
    """The file, how it is cut, how it is embedded; and it is claimed once."""
    chunking = Chunking(max_chunk_tokens=100, chunk_overlap_tokens=7)
    job = await with_job(database, chunking=chunking)
    expected = IngestJob(
        tenant="a",
        store_id="vs_1",
        file=file(),
        chunking=chunking,
        embedding=PIN,
        attempt=1,
        owner=OWNER,
        ticket=job.ticket,
    )
    assert job == expected
    assert await claim(database) == await claim(database, now=FAR - 1) == []
    async with database.reading() as uow:
        assert await uow.store_files.owners() == [OWNER]


async def test_a_published_file_has_one_range(database: SqlDatabase) -> None:
    """Of numbers that follow each other, with its texts, their places and their vectors."""
    job = await with_job(database)
    new = [chunk("naïve \x00 🙂", 0, windows=2), chunk("two", 5, windows=1)]
    assert await publish(database, job, new, usage_bytes=77)
    assert not await publish(database, job, new)
    async with database.reading() as uow:
        done = await uow.store_files.get("a", "vs_1", "file_1")
        found = await uow.chunks.of_file("a", "vs_1", "file_1", 0, MOST)
        assert await uow.store_files.owners() == []
    assert done == store_file(status="completed", usage_bytes=77, filename="file_1.txt")
    assert [(each.seq, each.text, each.start, each.end) for each in found] == [
        (1, "naïve \x00 🙂", 0, 9),
        (2, "two", 5, 8),
    ]
    delta = await read_delta(database, 0)
    assert told(delta) == ([], [(1, "naïve \x00 🙂"), (2, "two")], 2)
    for each, given in zip(delta.added, new, strict=True):
        assert each.vectors.dtype == given.vectors.dtype
        assert each.vectors.tolist() == given.vectors.tolist()
    now = await read_store(database)
    assert (now.head, now.usage_bytes, now.counts) == (2, 77, FileCounts(completed=1))


async def test_a_file_without_text_is_completed(database: SqlDatabase) -> None:
    """With no range; the log has not grown, and there is nothing to remove later."""
    job = await with_job(database)
    assert await publish(database, job, [], usage_bytes=0)
    async with database.writing() as uow:
        assert (await uow.store_files.get("a", "vs_1", "file_1")).status == "completed"
        await uow.store_files.remove("a", "vs_1", "file_1")
    assert (await read_store(database)).head == 0


async def test_vectors_of_another_length_are_refused(database: SqlDatabase) -> None:
    """A defect of ours, which must not get into a log; nothing has changed."""
    job = await with_job(database)
    with pytest.raises(ValueError, match="4 dimensions"):
        await publish(database, job, [msgspec.structs.replace(chunk(), vectors=vectors(1, 3))])
    with pytest.raises(InvalidRequest):
        await publish(database, job, [chunk("\ud800")])
    assert (await read_store(database)).head == 0
    assert await publish(database, job, chunks("x"))


Change = Callable[[UnitOfWork], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "cancelled": lambda u: u.file_batches.cancel("a", "vs_1", "vsfb_1"),
    "removed": lambda u: u.store_files.remove("a", "vs_1", "file_1"),
    "put in anew": lambda u: u.store_files.add("a", "vs_1", [store_file()], most=MOST, most_waiting=MOST),
    "put in anew and claimed": lambda u: again(u),
    "file deleted": lambda u: u.files.delete("a", "file_1"),
    "store deleted": lambda u: u.vector_stores.delete("a", "vs_1"),
    "vectors replaced": lambda u: u.chunks.swap("a", "vs_1", 1, OTHER_PIN),
    "its process is dead": lambda u: u.store_files.release_all(OWNER),
    "claimed again": lambda u: u.store_files.claim(OWNER, FAR + 1, FAR + 2, 1),
    "claimed by another": lambda u: u.store_files.claim("process 2", FAR + 1, FAR + 2, 1),
}


async def again(uow: UnitOfWork) -> None:
    await uow.store_files.add("a", "vs_1", [store_file()], most=MOST, most_waiting=MOST)
    assert len(await uow.store_files.claim(OWNER, NOW, FAR, 1)) == 1


@pytest.mark.parametrize("change", CHANGES)
async def test_a_job_that_was_lost_is_worth_nothing(database: SqlDatabase, database_url: str, change: str) -> None:
    """However it was lost: it publishes nothing, fails nothing, releases nothing."""
    job = await with_job(database, batch_id="vsfb_1")
    async with database.writing() as uow:
        await CHANGES[change](uow)
    before = await contents(database_url)
    assert not await publish(database, job, chunks("x"))
    async with database.writing() as uow:
        assert not await uow.store_files.fail(job, BROKEN)
        await uow.store_files.release(job)
    assert await contents(database_url) == before


async def test_a_job_is_somebody_elses_after_its_lease(database: SqlDatabase) -> None:
    """Not before; who renews keeps it; and each attempt counts."""
    await with_job(database)
    assert await claim(database, owner="process 2", now=FAR - 0.5) == []
    async with database.writing() as uow:
        await uow.store_files.renew("process 2", FAR + 100)
        await uow.store_files.renew(OWNER, FAR + 10)
    assert await claim(database, owner="process 2", now=FAR + 9.5) == []
    (job,) = await claim(database, owner="process 2", now=FAR + 10)
    assert (job.attempt, job.owner) == (2, "process 2")
    assert await publish(database, job, chunks("x"))


async def test_a_released_job_is_free_at_once(database: SqlDatabase) -> None:
    """And the attempt does not count; it does where a process has died."""
    job = await with_job(database)
    async with database.writing() as uow:
        await uow.store_files.release(job)
    (job,) = await claim(database)
    assert job.attempt == 1
    async with database.writing() as uow:
        assert await uow.store_files.release_all("process 2") == 0
        assert await uow.store_files.release_all(OWNER) == 1
        assert await uow.store_files.owners() == []
    (job,) = await claim(database)
    assert job.attempt == 2


async def test_new_vectors_free_the_jobs_of_a_store(database: SqlDatabase) -> None:
    """They are begun anew at once with the new model, and the attempt does not count."""
    await with_job(database)
    async with database.writing() as uow:
        assert await uow.chunks.swap("a", "vs_1", 1, OTHER_PIN)
    (job,) = await claim(database)
    assert (job.embedding, job.attempt) == (OTHER_PIN, 1)
    assert await publish(database, job, [msgspec.structs.replace(chunk(), vectors=vectors(1, OTHER_PIN.dimensions))])
    assert told(await read_delta(database, 0)) == ([], [(1, "text")], 1)


async def test_jobs_come_oldest_first(database: SqlDatabase) -> None:
    """Of one tenant, whatever the store."""
    await add_files(database, "f1", "f2", "f3")
    await add_store(database)
    await add_store(database, "vs_2")
    await put_in(database, "f1", created_at=NOW + 2)
    await put_in(database, "f2", store_id="vs_2", created_at=NOW + 1)
    await put_in(database, "f3", created_at=NOW + 3)
    assert [job.file.id for job in await claim(database, 2)] == ["f2", "f1"]
    assert [job.file.id for job in await claim(database, 2)] == ["f3"]


async def test_tenants_take_turns(database: SqlDatabase) -> None:
    """Whoever comes with one file does not wait for those of another with many, at any number of jobs at a time."""
    for tenant, names in (("a", [f"f{n}" for n in range(20)]), ("b", ["f0", "f1"]), ("c", ["f0"])):
        await add_files(database, *names, tenant=tenant)
        await add_store(database, tenant=tenant)
        await put_in(database, *names, tenant=tenant, created_at=NOW + ord(tenant))
    first = await claim(database, 4, now=NOW)
    assert Counter(job.tenant for job in first) == {"a": 2, "b": 1, "c": 1}
    (beside,) = await claim(database, 1, now=NOW + 1)
    assert beside.tenant == "b"
    for job in [*first, beside]:
        assert await publish(database, job, [])
    await add_files(database, "f2", "f3", "f4", tenant="b")
    await put_in(database, "f2", "f3", "f4", tenant="b", created_at=NOW + 1000)
    order = ""
    for n in range(6):
        (job,) = await claim(database, 1, now=NOW + 10 + n)
        assert await publish(database, job, [])
        order += job.tenant
    assert order == "ababab"
