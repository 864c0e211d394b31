"""Uploaded files, in pieces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Row, Text, bindparam, delete, insert, literal, select, update

from frontend.db import logs
from frontend.db.document_models import FilePieceRow, FileRow, StoreFileRow
from frontend.db.paging import read_page
from frontend.db.quotas import hold, require_bytes, require_room
from frontend.db.transaction import ID, MOST, NOW, TENANT, Transaction
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.documents import File
from frontend.domain.errors import NotFound

COLUMNS = FileRow.__table__.columns
THIS = (FileRow.tenant == TENANT) & (FileRow.id == ID)
IDS = bindparam("ids", type_=Text(), expanding=True)
THESE = (FileRow.tenant == TENANT) & FileRow.id.in_(IDS)

ADD = insert(FileRow)
ADD_PIECE = insert(FilePieceRow)
BEGUN = select(FileRow.size_bytes).where(THIS, ~FileRow.published)
PUBLISH = update(FileRow).where(THIS, ~FileRow.published).values(published=True).returning(*COLUMNS)
GET = select(*COLUMNS).where(THIS, FileRow.published)
FIND = select(*COLUMNS).where(THESE, FileRow.published)
PUBLISHED = select(literal(1)).where(THIS, FileRow.published)
PIECE = select(FilePieceRow.body).where(
    FilePieceRow.tenant == TENANT,
    FilePieceRow.file_id == ID,
    FilePieceRow.n == bindparam("n", type_=BigInteger()),
    select(literal(1)).where(THIS, FileRow.published).exists(),
)
LOCK = select(FileRow.id).where(THESE).order_by(FileRow.id).with_for_update()
HOLDING = (
    select(StoreFileRow.store_id, StoreFileRow.file_id)
    .where(StoreFileRow.tenant == TENANT, StoreFileRow.file_id.in_(IDS))
    .order_by(StoreFileRow.store_id)
)
DELETE = delete(FileRow).where(THESE)
EXPIRED = (
    select(FileRow.tenant, FileRow.id)
    .where(
        (FileRow.expires_at <= NOW)
        | (~FileRow.published & (FileRow.created_at < bindparam("begun_before", type_=BigInteger())))
    )
    .order_by(FileRow.tenant, FileRow.id)
    .limit(MOST)
    .with_for_update(skip_locked=True)
)


def load(row: Row[Any]) -> File:
    return File(
        id=row.id,
        filename=row.filename,
        purpose=row.purpose,
        size_bytes=row.size_bytes,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def missing(file_id: str) -> NotFound:
    return NotFound(f"No file found with id {file_id!r}.")


class SqlFiles:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def begin(self, tenant: str, file: File, *, most_files: int, most_bytes: int) -> None:
        await require_room(self._transaction, tenant, FileRow, most_files, file.created_at)
        await require_bytes(self._transaction, tenant, file.size_bytes, most_bytes)
        await self._transaction.run(
            ADD,
            tenant=tenant,
            id=file.id,
            filename=file.filename,
            purpose=file.purpose,
            size_bytes=file.size_bytes,
            created_at=file.created_at,
            expires_at=file.expires_at,
            published=False,
        )

    async def add_piece(self, tenant: str, file_id: str, n: int, body: bytes) -> None:
        if await self._transaction.first(BEGUN, of_tenant=tenant, of_id=file_id) is None:
            raise missing(file_id)
        await self._transaction.run(ADD_PIECE, tenant=tenant, file_id=file_id, n=n, body=body)

    async def publish(
        self,
        tenant: str,
        file_id: str,
        size_bytes: int,
        *,
        most_bytes: int,
        purpose: str | None = None,
        expires_at: int | None = None,
    ) -> File:
        await hold(self._transaction, tenant, 0)
        begun = await self._transaction.first(BEGUN, of_tenant=tenant, of_id=file_id)
        if begun is None:
            raise missing(file_id)
        await require_bytes(self._transaction, tenant, size_bytes - begun.size_bytes, most_bytes)
        known = {"purpose": purpose, "expires_at": expires_at}
        late = {name: value for name, value in known.items() if value is not None}
        row = await self._transaction.first(PUBLISH, of_tenant=tenant, of_id=file_id, size_bytes=size_bytes, **late)
        if row is None:
            raise missing(file_id)
        return load(row)

    async def get(self, tenant: str, file_id: str) -> File:
        row = await self._transaction.first(GET, of_tenant=tenant, of_id=file_id)
        if row is None:
            raise missing(file_id)
        return load(row)

    async def find(self, tenant: str, file_ids: Sequence[str]) -> dict[str, File]:
        rows = await self._transaction.rows(FIND, of_tenant=tenant, ids=list(dict.fromkeys(file_ids)))
        return {row.id: load(row) for row in rows}

    async def page(self, tenant: str, page: PageRequest, purpose: str | None) -> Page[File]:
        query = select(*COLUMNS).where(FileRow.tenant == tenant, FileRow.published)
        if purpose is not None:
            query = query.where(FileRow.purpose == purpose)
        keys = [FileRow.created_at, FileRow.id]
        return await read_page(self._transaction, query, page, keys, FileRow.id == page.after, load)

    async def piece(self, tenant: str, file_id: str, n: int) -> bytes | None:
        row = await self._transaction.first(PIECE, of_tenant=tenant, of_id=file_id, n=n)
        if row is not None:
            body: bytes = row.body
            return body
        if await self._transaction.first(PUBLISHED, of_tenant=tenant, of_id=file_id) is None:
            raise missing(file_id)
        return None

    async def delete(self, tenant: str, file_id: str) -> None:
        """Also one that is not published: an upload that was given up."""
        if not await self._delete(tenant, [file_id]):
            raise missing(file_id)

    async def delete_expired(self, now: int, begun_before: int, most: int) -> int:
        expired = await self._transaction.rows(EXPIRED, now=now, begun_before=begun_before, most=most)
        deleted = 0
        for tenant in sorted({row.tenant for row in expired}):
            deleted += await self._delete(tenant, [row.id for row in expired if row.tenant == tenant])
        return deleted

    async def _delete(self, tenant: str, file_ids: Sequence[str]) -> int:
        """How many files there were. They are locked, so that none of them is put into a store meanwhile."""
        await self._transaction.rows(LOCK, of_tenant=tenant, ids=file_ids)
        held: dict[str, list[str]] = defaultdict(list)
        for row in await self._transaction.rows(HOLDING, of_tenant=tenant, ids=file_ids):
            held[row.store_id].append(row.file_id)
        for store_id in sorted(held):
            if await self._transaction.first(logs.LOCK, of_tenant=tenant, of_id=store_id) is not None:
                await logs.take_out(self._transaction, tenant, store_id, held[store_id])
        return await self._transaction.run(DELETE, of_tenant=tenant, ids=file_ids)
