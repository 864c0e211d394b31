"""The files of vector stores, as their owner sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Text, bindparam, func, insert, select, update

from frontend.db import logs, vector_stores
from frontend.db.document_models import FileRow, StoreFileRow, VectorStoreRow
from frontend.db.files import missing as missing_file
from frontend.db.ingest_jobs import THIS, SqlIngestJobs
from frontend.db.paging import read_page
from frontend.db.quotas import hold, require_waiting
from frontend.db.transaction import ID, TENANT
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.documents import (
    AttributeValue,
    Chunking,
    IngestError,
    IngestStatus,
    StoreFile,
)
from frontend.domain.errors import NotFound, QuotaExceeded

IDS = bindparam("ids", type_=Text(), expanding=True)

ALL = select(*StoreFileRow.__table__.columns, FileRow.filename).join(
    FileRow, (FileRow.tenant == StoreFileRow.tenant) & (FileRow.id == StoreFileRow.file_id)
)
GET = ALL.where(THIS)
# FOR KEY SHARE: the files cannot be deleted until the transaction ends.
KEEP_FILES = (
    select(FileRow.id)
    .where(FileRow.tenant == TENANT, FileRow.id.in_(IDS), FileRow.published)
    .order_by(FileRow.id)
    .with_for_update(read=True, key_share=True)
)
LOCK_STORE = logs.LOCK.where(VectorStoreRow.kind == "documents")
COUNT = select(func.count()).where(StoreFileRow.tenant == TENANT, StoreFileRow.store_id == ID)
ADD = insert(StoreFileRow)
SET_ATTRIBUTES = update(StoreFileRow).where(THIS)


def load(row: Row[Any]) -> StoreFile:
    return StoreFile(
        file_id=row.file_id,
        store_id=row.store_id,
        created_at=row.created_at,
        status=row.status,
        error=None if row.error_code is None else IngestError(row.error_code, row.error_message),
        attributes=load_attributes(row.attributes),
        chunking=Chunking(max_chunk_tokens=row.max_chunk_tokens, chunk_overlap_tokens=row.chunk_overlap_tokens),
        batch_id=row.batch_id,
        usage_bytes=row.usage_bytes,
        filename=row.filename,
    )


def load_attributes(stored: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    """Every number as a float: PostgreSQL gives 1e20 back as an integer."""
    return {key: float(value) if type(value) is int else value for key, value in stored.items()}


def missing(file_id: str) -> NotFound:
    return NotFound(f"No file found with id {file_id!r} in this vector store.")


class SqlStoreFiles(SqlIngestJobs):
    async def add(
        self, tenant: str, store_id: str, files: Sequence[StoreFile], *, most: int, most_waiting: int
    ) -> None:
        new = {each.file_id: each for each in files}
        if not new:
            await vector_stores.require(self._transaction, tenant, store_id)
            return
        await hold(self._transaction, tenant, files[0].created_at)
        await self._keep_files(tenant, list(new))
        if await self._transaction.first(LOCK_STORE, of_tenant=tenant, of_id=store_id) is None:
            raise logs.missing(store_id)
        await logs.take_out(self._transaction, tenant, store_id, list(new))
        counted = await self._transaction.first(COUNT, of_tenant=tenant, of_id=store_id)
        if counted is not None and counted[0] + len(new) > most:
            raise QuotaExceeded(f"A vector store holds {most} files at most.")
        await require_waiting(self._transaction, tenant, len(new), most_waiting)
        await self._transaction.run_many(ADD, [columns(tenant, store_id, each) for each in new.values()])

    async def get(self, tenant: str, store_id: str, file_id: str) -> StoreFile:
        row = await self._transaction.first(GET, of_tenant=tenant, of_id=store_id, of_file=file_id)
        if row is None:
            raise missing(file_id)
        return load(row)

    async def page(
        self, tenant: str, store_id: str, page: PageRequest, *, status: IngestStatus | None, batch_id: str | None
    ) -> Page[StoreFile]:
        query = ALL.where(StoreFileRow.tenant == tenant, StoreFileRow.store_id == store_id)
        if batch_id is not None:
            query = query.where(StoreFileRow.batch_id == batch_id)
        some = query if status is None else query.where(StoreFileRow.status == status)
        keys = [StoreFileRow.created_at, StoreFileRow.file_id]
        cursor = StoreFileRow.file_id == page.after
        found = await read_page(self._transaction, some, page, keys, cursor, load, within=query)
        if not found.data:
            await vector_stores.require(self._transaction, tenant, store_id)
        return found

    async def set_attributes(
        self, tenant: str, store_id: str, file_id: str, attributes: Mapping[str, AttributeValue]
    ) -> StoreFile:
        await self._transaction.run(
            SET_ATTRIBUTES, of_tenant=tenant, of_id=store_id, of_file=file_id, attributes=dict(attributes)
        )
        return await self.get(tenant, store_id, file_id)

    async def remove(self, tenant: str, store_id: str, file_id: str) -> None:
        if await self._transaction.first(LOCK_STORE, of_tenant=tenant, of_id=store_id) is None:
            raise missing(file_id)
        if not await logs.take_out(self._transaction, tenant, store_id, [file_id]):
            raise missing(file_id)

    async def _keep_files(self, tenant: str, file_ids: Sequence[str]) -> None:
        """Raises NotFound if one is not there."""
        for some in logs.portions(file_ids):
            kept = {row.id for row in await self._transaction.rows(KEEP_FILES, of_tenant=tenant, ids=some)}
            for file_id in some:
                if file_id not in kept:
                    raise missing_file(file_id)


def columns(tenant: str, store_id: str, file: StoreFile) -> dict[str, object]:
    """Of a job that nobody has begun."""
    return {
        "tenant": tenant,
        "store_id": store_id,
        "file_id": file.file_id,
        "created_at": file.created_at,
        "status": file.status,
        "attributes": dict(file.attributes),
        "max_chunk_tokens": file.chunking.max_chunk_tokens,
        "chunk_overlap_tokens": file.chunking.chunk_overlap_tokens,
        "batch_id": file.batch_id,
        "usage_bytes": file.usage_bytes,
        "attempts": 0,
    }
