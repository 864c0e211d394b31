"""Files that are to be put into vector stores, as jobs: who works on which, for how long, and how it ends."""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Double, Row, Text, bindparam, case, func, select, text, tuple_, update
from sqlalchemy.orm import aliased

from frontend.db import logs
from frontend.db.document_models import FileRow, StoreFileRow, VectorStoreRow
from frontend.db.logs import load_pin
from frontend.db.transaction import ID, MOST, TENANT, Transaction
from frontend.domain.documents import Chunking, File, IngestError, IngestJob, NewChunk

FILE = bindparam("of_file", type_=Text())
OWNER = bindparam("of_owner", type_=Text())
TICKET = bindparam("of_ticket", type_=BigInteger())
TICKET_BITS = 63

# Literally, so that SQLite sees that its partial index will do.
WAITING = StoreFileRow.status == text("'in_progress'")
FREE = StoreFileRow.lease_until.is_(None) | (StoreFileRow.lease_until <= bindparam("moment", type_=Double()))
THIS = (StoreFileRow.tenant == TENANT) & (StoreFileRow.store_id == ID) & (StoreFileRow.file_id == FILE)
MINE = THIS & WAITING & (StoreFileRow.owner == OWNER) & (StoreFileRow.ticket == TICKET)
KEY = (StoreFileRow.tenant, StoreFileRow.store_id, StoreFileRow.file_id)
NOBODYS = {"owner": None, "ticket": None, "lease_until": None}

earlier = aliased(StoreFileRow)
TENANTS = (
    select(
        StoreFileRow.tenant,
        func.sum(case((FREE, 1), else_=0)).label("free"),
        func.count().label("waiting"),
        select(func.max(earlier.claimed_at))
        .where(earlier.tenant == StoreFileRow.tenant)
        .correlate(StoreFileRow)
        .scalar_subquery()
        .label("served_at"),
    )
    .where(WAITING)
    .group_by(StoreFileRow.tenant)
)
OLDEST = (
    select(
        *KEY,
        StoreFileRow.attempts,
        StoreFileRow.max_chunk_tokens,
        StoreFileRow.chunk_overlap_tokens,
        FileRow.filename,
        FileRow.purpose,
        FileRow.size_bytes,
        FileRow.created_at,
        FileRow.expires_at,
        VectorStoreRow.embedding_model,
        VectorStoreRow.embedding_digest,
        VectorStoreRow.embedding_dimensions,
        VectorStoreRow.embedding_window_tokens,
    )
    .join(FileRow, (FileRow.tenant == StoreFileRow.tenant) & (FileRow.id == StoreFileRow.file_id))
    .join(VectorStoreRow, (VectorStoreRow.tenant == StoreFileRow.tenant) & (VectorStoreRow.id == StoreFileRow.store_id))
    .where(StoreFileRow.tenant == TENANT, WAITING, FREE)
    .order_by(StoreFileRow.created_at, StoreFileRow.store_id, StoreFileRow.file_id)
    .limit(MOST)
    .with_for_update(of=StoreFileRow, skip_locked=True)
)
CLAIM = update(StoreFileRow).where(THIS).values(attempts=StoreFileRow.attempts + 1)
# Several rows are locked in the order of their keys, as everywhere.
OF_OWNER = select(*KEY).where(StoreFileRow.owner == OWNER).order_by(*KEY).with_for_update()
RENEW = update(StoreFileRow).where(tuple_(*KEY).in_(OF_OWNER))
RELEASE_ALL = update(StoreFileRow).where(tuple_(*KEY).in_(OF_OWNER)).values(NOBODYS)
RELEASE = update(StoreFileRow).where(MINE).values(attempts=StoreFileRow.attempts - 1, **NOBODYS)
END = update(StoreFileRow).where(MINE).values(NOBODYS)
OWNERS = select(StoreFileRow.owner).where(StoreFileRow.owner.is_not(None)).distinct()


class SqlIngestJobs:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def claim(self, owner: str, now: float, lease_until: float, most: int) -> list[IngestJob]:
        tenants = await self._transaction.rows(TENANTS, moment=now)
        jobs: list[IngestJob] = []
        for tenant, share in shares(tenants, most).items():
            rows = await self._transaction.rows(OLDEST, of_tenant=tenant, moment=now, most=share)
            jobs += [job(row, owner) for row in rows]
        claimed = [
            {**this(each), "owner": owner, "ticket": each.ticket, "lease_until": lease_until, "claimed_at": now}
            for each in jobs
        ]
        await self._transaction.run_many(CLAIM, claimed)
        return jobs

    async def renew(self, owner: str, lease_until: float) -> None:
        await self._transaction.run(RENEW, of_owner=owner, lease_until=lease_until)

    async def release(self, job: IngestJob) -> None:
        await self._transaction.run(RELEASE, **mine(job))

    async def publish(self, job: IngestJob, chunks: Sequence[NewChunk], usage_bytes: int) -> bool:
        store = await self._transaction.first(logs.LOCK, of_tenant=job.tenant, of_id=job.store_id)
        if store is None or load_pin(store) != job.embedding:
            return False
        first = store.head + 1
        last = store.head + len(chunks)
        outcome = {
            "status": "completed",
            "usage_bytes": usage_bytes,
            "first_seq": first if chunks else None,
            "last_seq": last if chunks else None,
        }
        if not await self._transaction.run(END, **mine(job), **outcome):
            return False
        if chunks:
            await self._transaction.run(logs.GROW, of_tenant=job.tenant, of_id=job.store_id, more=len(chunks))
            await logs.add_chunks(
                self._transaction,
                job.tenant,
                store,
                chunks,
                store_id=job.store_id,
                file_id=job.file.id,
                first_seq=first,
            )
        return True

    async def fail(self, job: IngestJob, error: IngestError) -> bool:
        outcome = {"status": "failed", "error_code": error.code, "error_message": error.message}
        return bool(await self._transaction.run(END, **mine(job), **outcome))

    async def owners(self) -> list[str]:
        return [row.owner for row in await self._transaction.rows(OWNERS)]

    async def release_all(self, owner: str) -> int:
        return await self._transaction.run(RELEASE_ALL, of_owner=owner)


def shares(tenants: Sequence[Row[Any]], most: int) -> dict[str, int]:
    """How many jobs each tenant gets: one at a time to the one with the fewest running, or that was served longest ago."""
    queue = [
        (each.waiting - each.free, each.served_at or 0.0, each.tenant, each.free) for each in tenants if each.free > 0
    ]
    heapq.heapify(queue)
    given: dict[str, int] = {}
    while queue and sum(given.values()) < most:
        running, served_at, tenant, free = heapq.heappop(queue)
        given[tenant] = given.get(tenant, 0) + 1
        if free > 1:
            heapq.heappush(queue, (running + 1, served_at, tenant, free - 1))
    return given


def job(row: Row[Any], owner: str) -> IngestJob:
    """`row` as it is before the claim."""
    return IngestJob(
        tenant=row.tenant,
        store_id=row.store_id,
        file=File(
            id=row.file_id,
            filename=row.filename,
            purpose=row.purpose,
            size_bytes=row.size_bytes,
            created_at=row.created_at,
            expires_at=row.expires_at,
        ),
        chunking=Chunking(max_chunk_tokens=row.max_chunk_tokens, chunk_overlap_tokens=row.chunk_overlap_tokens),
        embedding=load_pin(row),
        attempt=row.attempts + 1,
        owner=owner,
        ticket=secrets.randbits(TICKET_BITS),
    )


def this(job: IngestJob) -> dict[str, object]:
    return {"of_tenant": job.tenant, "of_id": job.store_id, "of_file": job.file.id}


def mine(job: IngestJob) -> dict[str, object]:
    return {**this(job), "of_owner": job.owner, "of_ticket": job.ticket}
