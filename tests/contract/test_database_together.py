"""Files, stores and their logs when much happens at the same time, on SQLite and PostgreSQL alike: two databases are two
processes, each with its own connections."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable

import asyncpg  # type: ignore[import-untyped]  # it publishes no types
import pytest

from frontend.db.database import SqlDatabase
from frontend.db.engines import sqlite_path
from frontend.domain.documents import IngestError, IngestJob
from frontend.domain.errors import NotFound
from tests.support.database import PostgresServer, contents, empty, opened
from tests.support.documents import (
    OWNER,
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
)
from tests.support.projection import Projection
from tests.support.records import FAR, MOST, NOW, conversation


@pytest.fixture
async def both(database_url: str) -> AsyncIterator[list[SqlDatabase]]:
    async with opened(database_url, 30) as one, opened(database_url, 30) as other:
        yield [one, other]


async def outcomes(work: Iterable[Awaitable[object]]) -> Counter[str]:
    """How often each way of ending came, by the name of its exception."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    return Counter(type(each).__name__ if isinstance(each, BaseException) else "done" for each in ended)


async def waits(url: str) -> None:
    """Returns when a transaction waits for another one's lock; on SQLite, where nobody can tell, at once."""
    if sqlite_path(url) is not None:
        return
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(20):
            while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
    finally:
        await connection.close()


@pytest.mark.parametrize("kept", [True, False])
async def test_numbers_follow_commits(both: list[SqlDatabase], database_url: str, kept: bool) -> None:
    """Two open transactions publish to one store: the second gets its numbers when the first has ended, those behind it or,
    if it was taken back, its own. A reader that looks at any moment misses nothing."""
    await add_files(both[0], "f1", "f2")
    await add_store(both[0])
    await put_in(both[0], "f1", "f2")
    first, second = await claim(both[0])
    reader = Projection(both[1])
    await reader.to_the_head()

    async def early() -> asyncio.Task[bool]:
        async with both[0].writing() as uow:
            assert await uow.store_files.publish(first, chunks("a", "b"), 1)
            late = asyncio.create_task(publish(both[1], second, chunks("c")))
            await waits(database_url)
            await reader.to_the_head()
            assert not late.done()
            if not kept:
                raise ZeroDivisionError
        return late

    if kept:
        assert await (await early())
    else:
        with pytest.raises(ZeroDivisionError):
            await early()
        async with asyncio.timeout(20):
            while (await read_store(both[1])).counts.completed == 0:
                await reader.to_the_head()
    await reader.to_the_head()
    expected = ["a", "b", "c"] if kept else ["c"]
    assert told(await read_delta(both[0], 0)) == ([], [*enumerate(expected, 1)], len(expected))
    assert reader.texts == dict(enumerate(expected, 1))


async def test_stores_do_not_wait_for_each_other(postgres: PostgresServer) -> None:
    """A publication to one store goes on while another one is open, where there can be two writers."""
    await empty(postgres.get_uri())
    async with opened(postgres.get_uri()) as database, asyncio.timeout(20):
        await add_files(database, "f1", "f2")
        for store_id, file_id in (("vs_1", "f1"), ("vs_2", "f2")):
            await add_store(database, store_id)
            await put_in(database, file_id, store_id=store_id)
        first, second = await claim(database)
        async with database.writing() as uow:
            assert await uow.store_files.publish(first, chunks("a"), 1)
            assert await publish(database, second, chunks("b"))


async def test_a_job_is_claimed_once(both: list[SqlDatabase]) -> None:
    """By one of many that ask at the same time, and none is left over."""
    names = [f"f{n:02}" for n in range(40)]
    for tenant in "abc":
        await add_files(both[0], *names, tenant=tenant)
        await add_store(both[0], tenant=tenant)
        await put_in(both[0], *names, tenant=tenant)
    claimed: list[IngestJob] = []

    async def work(n: int) -> None:
        while jobs := await claim(both[n % 2], 3, owner=f"process {n}"):
            claimed.extend(jobs)

    assert await outcomes(work(n) for n in range(8)) == {"done": 8}
    claimed.extend(await claim(both[0]))  # what others had locked when the last one asked
    keys = [(job.tenant, job.file.id) for job in claimed]
    assert len(keys) == len(set(keys)) == 120


async def test_a_claim_is_one_workers(both: list[SqlDatabase]) -> None:
    """Ten whose leases run out at once go to one each, and who had them publishes nothing."""
    names = [f"f{n}" for n in range(10)]
    await add_files(both[0], *names)
    await add_store(both[0])
    await put_in(both[0], *names)
    old = await claim(both[0])
    took: list[list[IngestJob]] = await asyncio.gather(
        *(claim(both[n % 2], now=FAR + 1, lease_until=FAR + 2) for n in range(6))
    )
    new = [job for jobs in took for job in jobs]
    if len(new) < 10:
        new += await claim(both[0], now=FAR + 1, lease_until=FAR + 2)
    assert sorted(job.file.id for job in new) == names
    work = [*old, *new]
    random.Random(1).shuffle(work)  # noqa: S311  # no secret
    published = await asyncio.gather(*(publish(both[n % 2], job, chunks("x")) for n, job in enumerate(work)))
    assert [job for job, done in zip(work, published, strict=True) if done] == [job for job in work if job in new]


async def test_readers_follow_whatever_happens(both: list[SqlDatabase]) -> None:
    """Files are put in, published, taken back, removed, deleted and put in anew by many at once; two readers that follow
    the log hold what SQL holds whenever they are at its head."""
    names = [f"f{n}" for n in range(8)]
    await add_files(both[0], *names)
    await add_store(both[0])
    readers = [Projection(database) for database in both]
    over = asyncio.Event()

    async def write(n: int) -> None:
        choose = random.Random(n)  # noqa: S311  # no secret
        database = both[n % 2]
        for step in range(12):
            name = choose.choice(names)
            await put_in(database, name)
            jobs = await claim(database, choose.randint(1, 3), owner=f"process {n}")
            for job in jobs:
                await publish_or_not(
                    database, job, [f"{n} {step} {part}" for part in range(choose.randint(0, 12))], choose
                )
            async with database.writing() as uow:
                if choose.random() < 0.3:
                    await uow.chunks.vacuum("a", "vs_1", 2)
                elif choose.random() < 0.5:
                    await uow.store_files.remove("a", "vs_1", choose.choice(names))

    async def publish_or_not(database: SqlDatabase, job: IngestJob, texts: list[str], choose: random.Random) -> None:
        async with database.writing() as uow:
            await uow.store_files.publish(job, chunks(*texts), 1)
            if choose.random() < 0.3:
                raise ZeroDivisionError

    async def write_on(n: int) -> None:
        for attempt in range(3):
            try:
                await write(10 * attempt + n)
            except (NotFound, ZeroDivisionError):
                continue

    async def follow(reader: Projection) -> None:
        while not over.is_set():
            await reader.follow()

    following = [asyncio.create_task(follow(reader)) for reader in readers]
    assert await outcomes(write_on(n) for n in range(6)) == {"done": 6}
    over.set()
    await asyncio.gather(*following)
    for reader in readers:
        await reader.to_the_head()
        assert reader.compared > 1
    assert readers[0].texts == readers[1].texts


async def test_a_quota_holds_for_twenty_at_once(both: list[SqlDatabase], database_url: str) -> None:
    """Of files, of their bytes, of stores, of a store's files."""

    async def begin(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.files.begin("a", file(f"f{n:02}", size_bytes=0), most_files=10, most_bytes=10)

    assert await outcomes(begin(n) for n in range(20)) == {"done": 10, "QuotaExceeded": 10}
    kept = sorted(row[1] for row in (await contents(database_url))["files"])

    async def finish(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.files.publish("a", kept[n], 2, most_bytes=12)

    assert await outcomes(finish(n) for n in range(10)) == {"done": 6, "QuotaExceeded": 4}

    async def add(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.vector_stores.add("a", store(f"vs_{n}"), 5)

    assert await outcomes(add(n) for n in range(10)) == {"done": 5, "QuotaExceeded": 5}
    await add_files(both[0], *(f"g{n}" for n in range(10)), tenant="b")
    await add_store(both[0], tenant="b")

    async def put(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.store_files.add("b", "vs_1", [store_file(f"g{n}")], most=3, most_waiting=MOST)

    assert await outcomes(put(n) for n in range(10)) == {"done": 3, "QuotaExceeded": 7}


async def test_nobody_waits_in_a_circle(both: list[SqlDatabase]) -> None:
    """Files and stores are deleted, expire, are cancelled, renewed and published, all at once and in all orders."""
    names, stores = [f"f{n}" for n in range(6)], [f"vs_{n}" for n in range(4)]
    for round_number in range(4):
        choose = random.Random(round_number)  # noqa: S311  # no secret
        await add_files(both[0], *names, expires_at=NOW + 5)
        for store_id in stores:
            await add_store(both[0], store_id)
            async with both[0].writing() as uow:
                await uow.file_batches.add("a", batch(f"b_{store_id}", store_id))
            await put_in(both[0], *choose.sample(names, 6), store_id=store_id, batch_id=f"b_{store_id}")
        jobs = await claim(both[0], 20)

        async def delete_file(n: int) -> None:
            async with both[n % 2].writing() as uow:
                await uow.files.delete("a", names[n])

        async def expire(n: int) -> None:
            async with both[n % 2].writing() as uow:
                await uow.files.delete_expired(NOW + 9, NOW, 10)
                await uow.vector_stores.delete_expired(NOW + 9, 10)

        async def delete_store(n: int) -> None:
            async with both[n % 2].writing() as uow:
                await uow.vector_stores.delete("a", stores[n])

        async def cancel(n: int) -> None:
            async with both[n % 2].writing() as uow:
                await uow.file_batches.cancel("a", stores[n], f"b_{stores[n]}")

        async def renew(n: int) -> None:
            async with both[n % 2].writing() as uow:
                await uow.store_files.renew(OWNER, FAR + n)

        async def release_all(n: int) -> None:
            async with both[n % 2].writing() as uow:
                await uow.store_files.release_all(OWNER)

        async def swap(n: int) -> None:
            async with both[n % 2].writing() as uow:
                await uow.chunks.swap("a", stores[n], 1, PIN)

        async def fail(n: int, job: IngestJob) -> None:
            async with both[n % 2].writing() as uow:
                await uow.store_files.fail(job, IngestError("server_error", "x"))

        work = [
            *(publish(both[n % 2], job, chunks("x", "y")) for n, job in enumerate(jobs[:15])),
            *(fail(n, job) for n, job in enumerate(jobs[15:])),
            *(delete_file(n) for n in range(5)),
            *(put_in(both[n % 2], *choose.sample(names, 3), store_id=stores[n % 4]) for n in range(8)),
            *(renew(n) for n in range(6)),
            *(claim(both[n % 2], 3, now=FAR + 99) for n in range(4)),
            *(cancel(n) for n in range(4)),
            *(swap(n) for n in range(4)),
            *(delete_store(n) for n in range(2)),
            expire(0),
            expire(1),
            release_all(0),
        ]
        choose.shuffle(work)
        assert set(await outcomes(work)) <= {"done", "NotFound"}
        for store_id in stores[2:]:
            async with both[0].writing() as uow:
                await uow.vector_stores.delete("a", store_id)
        async with both[0].writing() as uow:
            await uow.files.delete_expired(NOW + 9, NOW, 10)


async def test_a_conversation_goes_with_its_memory_under_its_writers(
    both: list[SqlDatabase], database_url: str
) -> None:
    """Who remembers at the same time has done so before, or finds it gone; nothing is left."""
    names = [f"c{n}" for n in range(8)]
    async with both[0].writing() as uow:
        for name in names:
            await uow.conversations.add("a", conversation(name), MOST)
            await uow.vector_stores.add("a", memory(f"m_{name}", name), MOST)

    async def remember(n: int, name: str) -> None:
        async with both[n % 2].writing() as uow:
            await uow.conversations.hold("a", name)
            await uow.vector_stores.add("a", memory(f"m_{name}", name), MOST)
            await uow.chunks.append("a", f"m_{name}", chunks("x"))

    async def forget(n: int, name: str) -> None:
        async with both[n % 2].writing() as uow:
            await uow.conversations.hold("a", name)
            await uow.vector_stores.delete_memory("a", name)

    async def remove(name: str) -> None:
        async with both[1].writing() as uow:
            await uow.conversations.delete("a", name)

    work = [
        each
        for name in names
        for each in (remember(0, name), remember(1, name), forget(0, name), remove(name), remember(2, name))
    ]
    assert set(await outcomes(work)) <= {"done", "NotFound"}
    left = await contents(database_url)
    left.pop("tenants")
    assert set().union(*left.values()) == set()
