"""Vector stores and memories: their records, with counts of their files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Row, Text, and_, bindparam, case, delete, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from frontend.db import logs
from frontend.db.document_models import StoreFileRow, VectorStoreRow
from frontend.db.logs import load_pin, missing, pin_columns
from frontend.db.paging import read_page
from frontend.db.quotas import require_room
from frontend.db.transaction import ID, MOST, NOW, TENANT, Transaction
from frontend.domain.conversations import ExpiresAfter, Page, PageRequest
from frontend.domain.documents import EmbeddingPin, FileCounts, VectorStore

COLUMNS = VectorStoreRow.__table__.columns
DOCUMENTS = VectorStoreRow.kind == "documents"
THIS = logs.THIS & DOCUMENTS
IDS = bindparam("ids", type_=Text(), expanding=True)

ADD = insert(VectorStoreRow)
CONVERSATION = ["tenant", "conversation_id"]
ADD_MEMORY = {
    "sqlite": sqlite.insert(VectorStoreRow).on_conflict_do_nothing(index_elements=CONVERSATION),
    "postgresql": postgresql.insert(VectorStoreRow).on_conflict_do_nothing(index_elements=CONVERSATION),
}
EXISTS = select(literal(1)).where(THIS)
GET = select(*COLUMNS).where(THIS)
MEMORY = select(*COLUMNS).where(VectorStoreRow.tenant == TENANT, VectorStoreRow.conversation_id == ID)
DELETE_MEMORY = delete(VectorStoreRow).where(
    VectorStoreRow.tenant == TENANT, VectorStoreRow.conversation_id == ID, VectorStoreRow.kind == "memory"
)
COUNTS = (
    select(
        StoreFileRow.store_id,
        StoreFileRow.status,
        func.count().label("files"),
        func.sum(StoreFileRow.usage_bytes).label("usage_bytes"),
    )
    .where(StoreFileRow.tenant == TENANT, StoreFileRow.store_id.in_(IDS))
    .group_by(StoreFileRow.store_id, StoreFileRow.status)
)
UPDATE = update(VectorStoreRow).where(THIS)
TOUCH = (
    update(VectorStoreRow)
    .where(THIS)
    .values(
        last_active_at=NOW,
        expires_at=case(
            (VectorStoreRow.expires_anchor == "last_active_at", VectorStoreRow.expires_seconds + NOW),
            else_=VectorStoreRow.expires_at,
        ),
    )
)
# The store's row before those of its files, and these in their order (frontend/db/document_models.py); the foreign keys
# take the rest: batches, chunks, vectors, removals.
LOCK = select(VectorStoreRow.id).where(THIS).with_for_update()
LOCK_FILES = (
    select(StoreFileRow.file_id)
    .where(StoreFileRow.tenant == TENANT, StoreFileRow.store_id == ID)
    .order_by(StoreFileRow.file_id)
    .with_for_update()
)
DELETE = delete(VectorStoreRow).where(THIS)
EXPIRED = (
    select(VectorStoreRow.tenant, VectorStoreRow.id)
    .where(VectorStoreRow.expires_at <= NOW)
    .order_by(VectorStoreRow.expires_at)
    .limit(MOST)
    .with_for_update(skip_locked=True)
)
OUTDATED = (
    select(*COLUMNS)
    .where(
        ~and_(
            VectorStoreRow.embedding_model == bindparam("model", type_=Text()),
            VectorStoreRow.embedding_digest == bindparam("digest", type_=Text()),
            VectorStoreRow.embedding_dimensions == bindparam("dimensions", type_=BigInteger()),
            VectorStoreRow.embedding_window_tokens == bindparam("window_tokens", type_=BigInteger()),
        )
    )
    .order_by(VectorStoreRow.tenant, VectorStoreRow.id)
    .limit(MOST)
)


def load(row: Row[Any]) -> VectorStore:
    """Without its counts."""
    anchor, seconds = row.expires_anchor, row.expires_seconds
    return VectorStore(
        id=row.id,
        kind=row.kind,
        conversation_id=row.conversation_id,
        name=row.name,
        description=row.description,
        metadata=row.metadata,
        created_at=row.created_at,
        last_active_at=row.last_active_at,
        expires_after=None if anchor is None else ExpiresAfter(anchor=anchor, seconds=seconds),
        embedding=load_pin(row),
        generation=row.generation,
        head=row.head,
        floor=row.floor,
    )


def described(store: VectorStore) -> dict[str, object]:
    """The columns that its owner can change."""
    expires = store.expires_after
    return {
        "name": store.name,
        "description": store.description,
        "metadata": dict(store.metadata),
        "expires_anchor": None if expires is None else expires.anchor,
        "expires_seconds": None if expires is None else expires.seconds,
    }


async def require(transaction: Transaction, tenant: str, store_id: str) -> None:
    """Raises NotFound if there is no such store of documents."""
    if await transaction.first(EXISTS, of_tenant=tenant, of_id=store_id) is None:
        raise missing(store_id)


class SqlVectorStores:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, tenant: str, store: VectorStore, most: int) -> None:
        statement = ADD
        if store.kind == "memory":
            statement = ADD_MEMORY["sqlite" if self._transaction.is_sqlite else "postgresql"]
        else:
            await require_room(self._transaction, tenant, VectorStoreRow, most, store.created_at)
        await self._transaction.run(
            statement,
            tenant=tenant,
            id=store.id,
            kind=store.kind,
            conversation_id=store.conversation_id,
            created_at=store.created_at,
            last_active_at=store.last_active_at,
            expires_at=store.expires_at,
            generation=store.generation,
            head=store.head,
            floor=store.floor,
            **described(store),
            **pin_columns(store.embedding),
        )

    async def get(self, tenant: str, store_id: str) -> VectorStore:
        row = await self._transaction.first(GET, of_tenant=tenant, of_id=store_id)
        if row is None:
            raise missing(store_id)
        (store,) = await self._counted(tenant, [load(row)])
        return store

    async def memory(self, tenant: str, conversation_id: str) -> VectorStore | None:
        row = await self._transaction.first(MEMORY, of_tenant=tenant, of_id=conversation_id)
        return None if row is None else load(row)

    async def delete_memory(self, tenant: str, conversation_id: str) -> None:
        await self._transaction.run(DELETE_MEMORY, of_tenant=tenant, of_id=conversation_id)

    async def page(self, tenant: str, page: PageRequest) -> Page[VectorStore]:
        query = select(*COLUMNS).where(VectorStoreRow.tenant == tenant, DOCUMENTS)
        keys = [VectorStoreRow.created_at, VectorStoreRow.id]
        found = await read_page(self._transaction, query, page, keys, VectorStoreRow.id == page.after, load)
        return Page(await self._counted(tenant, found.data), found.has_more)

    async def update(self, tenant: str, store: VectorStore) -> None:
        expires = store.expires_after
        statement = UPDATE.values(expires_at=None)
        if expires is not None:
            anchors = {"created_at": VectorStoreRow.created_at, "last_active_at": VectorStoreRow.last_active_at}
            statement = UPDATE.values(expires_at=anchors[expires.anchor] + expires.seconds)
        if not await self._transaction.run(statement, of_tenant=tenant, of_id=store.id, **described(store)):
            raise missing(store.id)

    async def touch(self, tenant: str, store_id: str, now: int) -> None:
        if not await self._transaction.run(TOUCH, of_tenant=tenant, of_id=store_id, now=now):
            raise missing(store_id)

    async def delete(self, tenant: str, store_id: str) -> None:
        if not await self._delete(tenant, store_id):
            raise missing(store_id)

    async def delete_expired(self, now: int, most: int) -> list[tuple[str, str]]:
        expired = sorted((row.tenant, row.id) for row in await self._transaction.rows(EXPIRED, now=now, most=most))
        for tenant, store_id in expired:
            await self._delete(tenant, store_id)
        return expired

    async def outdated(self, embedding: EmbeddingPin, most: int) -> list[tuple[str, VectorStore]]:
        rows = await self._transaction.rows(OUTDATED, most=most, **msgspec.structs.asdict(embedding))
        return [(row.tenant, load(row)) for row in rows]

    async def _delete(self, tenant: str, store_id: str) -> bool:
        """False if there was none."""
        if await self._transaction.first(LOCK, of_tenant=tenant, of_id=store_id) is None:
            return False
        await self._transaction.rows(LOCK_FILES, of_tenant=tenant, of_id=store_id)
        return bool(await self._transaction.run(DELETE, of_tenant=tenant, of_id=store_id))

    async def _counted(self, tenant: str, stores: Sequence[VectorStore]) -> list[VectorStore]:
        """With one statement for all of them."""
        if not stores:
            return []
        rows = await self._transaction.rows(COUNTS, of_tenant=tenant, ids=[store.id for store in stores])
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        usage_bytes: dict[str, int] = defaultdict(int)
        for row in rows:
            counts[row.store_id][row.status] = row.files
            usage_bytes[row.store_id] += int(row.usage_bytes)
        return [
            msgspec.structs.replace(store, counts=FileCounts(**counts[store.id]), usage_bytes=usage_bytes[store.id])
            for store in stores
        ]
