"""Chunks: what stands in the logs of stores, and what of it a search may find."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Row, Text, bindparam, delete, func, insert, select, update

from frontend.db import ingest_jobs, logs, store_files, vector_stores
from frontend.db.codec import decode_vectors, encode_vectors
from frontend.db.document_models import (
    ChunkRow,
    ChunkVectorRow,
    FileRow,
    RemovalRow,
    StoreFileRow,
    VectorStoreRow,
)
from frontend.db.transaction import ID, MOST, TENANT, Transaction
from frontend.domain.attributes import meets, merged
from frontend.domain.documents import AttributeFilter, EmbeddingPin, FoundChunk, NewChunk, VectorStore
from retrieval.types import Chunk, Delta, Range

AFTER = bindparam("after", type_=BigInteger())
UPTO = bindparam("upto", type_=BigInteger())
GENERATION = bindparam("of_generation", type_=BigInteger())
SEQS = bindparam("seqs", type_=BigInteger(), expanding=True)
ITS_CHUNKS = (ChunkRow.tenant == TENANT) & (ChunkRow.store_id == ID)
ITS_VECTORS = (ChunkVectorRow.tenant == TENANT) & (ChunkVectorRow.store_id == ID)
ITS_REMOVALS = (RemovalRow.tenant == TENANT) & (RemovalRow.store_id == ID)
# Texts and vectors are read apart, and put together here: before PostgreSQL has statistics it may join them with a loop in a
# loop, which took 9 s for 4,096 chunks of 20,000 instead of 0.1.
TEXTS = (
    select(ChunkRow.seq, ChunkRow.body)
    .where(ITS_CHUNKS, ChunkRow.seq > AFTER, ChunkRow.seq <= UPTO)
    .order_by(ChunkRow.seq)
    .limit(MOST)
)
VECTORS = select(ChunkVectorRow.seq, ChunkVectorRow.vectors).where(
    ITS_VECTORS, ChunkVectorRow.seq > AFTER, ChunkVectorRow.seq <= UPTO, ChunkVectorRow.generation == GENERATION
)
REMOVED = (
    select(RemovalRow.first, RemovalRow.last)
    .where(ITS_REMOVALS, RemovalRow.seq > AFTER, RemovalRow.seq <= UPTO)
    .order_by(RemovalRow.seq)
)
READ = (
    select(
        ChunkRow.seq,
        ChunkRow.file_id,
        ChunkRow.start,
        ChunkRow.end,
        ChunkRow.body,
        FileRow.filename,
        StoreFileRow.attributes,
    )
    .outerjoin(
        StoreFileRow,
        (StoreFileRow.tenant == ChunkRow.tenant)
        & (StoreFileRow.store_id == ChunkRow.store_id)
        & (StoreFileRow.file_id == ChunkRow.file_id),
    )
    .outerjoin(FileRow, (FileRow.tenant == ChunkRow.tenant) & (FileRow.id == ChunkRow.file_id))
    .where(ITS_CHUNKS)
)
THESE = READ.where(ChunkRow.seq.in_(SEQS))
OF_FILE = (
    READ.where(ChunkRow.file_id == bindparam("of_file", type_=Text()), ChunkRow.seq > AFTER)
    .order_by(ChunkRow.seq)
    .limit(MOST)
)
ATTRIBUTES = (
    select(StoreFileRow.first_seq, StoreFileRow.last_seq, StoreFileRow.attributes)
    .where(StoreFileRow.tenant == TENANT, StoreFileRow.store_id == ID, StoreFileRow.first_seq.is_not(None))
    .order_by(StoreFileRow.first_seq)
)
LOCK_MEMORY = logs.LOCK.where(VectorStoreRow.kind == "memory")
NEWEST_FORGOTTEN = select(RemovalRow.seq).where(ITS_REMOVALS).order_by(RemovalRow.seq.desc()).offset(MOST).limit(1)
FORGET = delete(RemovalRow).where(ITS_REMOVALS, RemovalRow.seq <= UPTO)
RAISE_FLOOR = update(VectorStoreRow).where(logs.THIS, VectorStoreRow.floor < UPTO).values(floor=UPTO)
PRESENT = select(ChunkRow.seq).where(ITS_CHUNKS, ChunkRow.seq.in_(SEQS))
DROP_VECTORS = delete(ChunkVectorRow).where(
    ITS_VECTORS, ChunkVectorRow.seq.in_(SEQS), ChunkVectorRow.generation == GENERATION
)
ADD_VECTORS = insert(ChunkVectorRow)
ALL_HAVE_VECTORS = select(
    select(func.count()).select_from(ChunkRow).where(ITS_CHUNKS).scalar_subquery()
    == select(func.count())
    .select_from(ChunkVectorRow)
    .where(ITS_VECTORS, ChunkVectorRow.generation == GENERATION)
    .scalar_subquery()
)
"""A foreign key sees to it that there are none without a chunk."""
DROP_OTHERS = delete(ChunkVectorRow).where(ITS_VECTORS, ChunkVectorRow.generation != GENERATION)
SWAP = update(VectorStoreRow).where(logs.THIS)
# Their vectors would be of the old making; the attempt does not count.
ITS_JOBS = (StoreFileRow.tenant == TENANT) & (StoreFileRow.store_id == ID) & StoreFileRow.owner.is_not(None)
LOCK_JOBS = select(StoreFileRow.file_id).where(ITS_JOBS).order_by(StoreFileRow.file_id).with_for_update()
FREE_JOBS = update(StoreFileRow).where(ITS_JOBS).values(attempts=StoreFileRow.attempts - 1, **ingest_jobs.NOBODYS)


def load(row: Row[Any]) -> FoundChunk:
    return FoundChunk(
        seq=row.seq,
        file_id=row.file_id,
        filename=row.filename or "",
        attributes=store_files.load_attributes(row.attributes or {}),
        text=row.body.decode(),
        start=row.start,
        end=row.end,
    )


def ranges_that_meet(rows: Sequence[Row[Any]], filters: AttributeFilter) -> list[Range]:
    return merged((row.first_seq, row.last_seq) for row in rows if meets(row.attributes, filters))


class SqlChunks:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def delta(self, tenant: str, store: VectorStore, after: int, most: int) -> Delta:
        """`added` may lack what a later removal takes, and never has what an earlier one took: those rows are gone."""
        behind = {"of_tenant": tenant, "of_id": store.id, "after": after}
        texts = await self._transaction.rows(TEXTS, **behind, upto=store.head, most=most)
        upto = max(after, texts[-1].seq if len(texts) == most else store.head)
        rows = await self._transaction.rows(VECTORS, **behind, upto=upto, of_generation=store.generation)
        vectors = {row.seq: decode_vectors(row.vectors, store.embedding.dimensions) for row in rows}
        removed = await self._transaction.rows(REMOVED, **behind, upto=upto) if after else ()
        return Delta(
            after=after,
            upto=upto,
            removed=[(row.first, row.last) for row in removed],
            added=[Chunk(row.seq, row.body.decode(), vectors[row.seq]) for row in texts if row.seq in vectors],
        )

    async def append(self, tenant: str, store_id: str, chunks: Sequence[NewChunk]) -> int:
        store = await self._transaction.first(LOCK_MEMORY, of_tenant=tenant, of_id=store_id)
        if store is None:
            raise logs.missing(store_id)
        head: int = store.head
        if chunks:
            await self._transaction.run(logs.GROW, of_tenant=tenant, of_id=store_id, more=len(chunks))
            await logs.add_chunks(
                self._transaction, tenant, store, chunks, store_id=store_id, file_id=None, first_seq=head + 1
            )
        return head + len(chunks)

    async def read(self, tenant: str, store_id: str, seqs: Sequence[int]) -> dict[int, FoundChunk]:
        wanted = list(dict.fromkeys(seqs))
        rows = await self._transaction.rows(THESE, of_tenant=tenant, of_id=store_id, seqs=wanted)
        return {row.seq: load(row) for row in rows}

    async def of_file(self, tenant: str, store_id: str, file_id: str, after: int, most: int) -> list[FoundChunk]:
        its = {"of_tenant": tenant, "of_id": store_id, "of_file": file_id}
        rows = await self._transaction.rows(OF_FILE, **its, after=after, most=most)
        if not rows and await self._transaction.first(store_files.GET, **its) is None:
            raise store_files.missing(file_id)
        return [load(row) for row in rows]

    async def allowed(self, tenant: str, store_id: str, filters: AttributeFilter) -> list[Range]:
        rows = await self._transaction.rows(ATTRIBUTES, of_tenant=tenant, of_id=store_id)
        if not rows:
            await vector_stores.require(self._transaction, tenant, store_id)
        return await asyncio.to_thread(ranges_that_meet, rows, filters)  # 10,000 files: about 0.1 s

    async def vacuum(self, tenant: str, store_id: str, keep: int) -> None:
        await logs.lock(self._transaction, tenant, store_id)
        newest = await self._transaction.first(NEWEST_FORGOTTEN, of_tenant=tenant, of_id=store_id, most=keep)
        if newest is not None:
            for statement in (FORGET, RAISE_FLOOR):
                await self._transaction.run(statement, of_tenant=tenant, of_id=store_id, upto=newest.seq)

    async def replace_vectors(
        self, tenant: str, store_id: str, generation: int, vectors: Mapping[int, NDArray[np.float16]]
    ) -> None:
        store = await logs.lock(self._transaction, tenant, store_id)
        if generation <= store.generation or not vectors:
            return  # somebody else was faster
        these = {"of_tenant": tenant, "of_id": store_id, "seqs": list(vectors)}
        present = [row.seq for row in await self._transaction.rows(PRESENT, **these)]
        await self._transaction.run(DROP_VECTORS, **these, of_generation=generation)
        place = {"tenant": tenant, "store_id": store_id, "generation": generation}
        await self._transaction.run_many(
            ADD_VECTORS,
            [{**place, "seq": seq, "vectors": encode_vectors(vectors[seq], vectors[seq].shape[-1])} for seq in present],
        )

    async def swap(self, tenant: str, store_id: str, generation: int, embedding: EmbeddingPin) -> bool:
        store = await logs.lock(self._transaction, tenant, store_id)
        this = {"of_tenant": tenant, "of_id": store_id}
        if generation <= store.generation:
            return False
        complete = await self._transaction.first(ALL_HAVE_VECTORS, **this, of_generation=generation)
        if complete is None or not complete[0]:
            return False
        await self._transaction.rows(LOCK_JOBS, **this)
        await self._transaction.run(FREE_JOBS, **this)
        await self._transaction.run(DROP_OTHERS, **this, of_generation=generation)
        await self._transaction.run(SWAP, **this, generation=generation, **logs.pin_columns(embedding))
        return True
