"""Files that were put into a vector store together."""

from __future__ import annotations

from sqlalchemy import Text, bindparam, func, insert, select, text, update

from frontend.db import logs
from frontend.db.document_models import FileBatchRow, StoreFileRow
from frontend.db.transaction import ID, TENANT, Transaction
from frontend.domain.documents import FileBatch, FileCounts
from frontend.domain.errors import NotFound

BATCH = bindparam("of_batch", type_=Text())
THIS = (FileBatchRow.tenant == TENANT) & (FileBatchRow.store_id == ID) & (FileBatchRow.id == BATCH)
ITS_FILES = (StoreFileRow.tenant == TENANT) & (StoreFileRow.store_id == ID) & (StoreFileRow.batch_id == BATCH)
ITS_JOBS = ITS_FILES & (StoreFileRow.status == text("'in_progress'"))

ADD = insert(FileBatchRow)
GET = select(*FileBatchRow.__table__.columns).where(THIS)
COUNTS = select(StoreFileRow.status, func.count().label("files")).where(ITS_FILES).group_by(StoreFileRow.status)
CANCEL = update(FileBatchRow).where(THIS).values(cancelled=True)
LOCK_JOBS = select(StoreFileRow.file_id).where(ITS_JOBS).order_by(StoreFileRow.file_id).with_for_update()
CANCEL_JOBS = update(StoreFileRow).where(ITS_JOBS).values(status="cancelled", owner=None, ticket=None, lease_until=None)


def missing(batch_id: str) -> NotFound:
    return NotFound(f"No file batch found with id {batch_id!r}.")


class SqlFileBatches:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, tenant: str, batch: FileBatch) -> None:
        await self._transaction.run(
            ADD,
            tenant=tenant,
            id=batch.id,
            store_id=batch.store_id,
            created_at=batch.created_at,
            cancelled=batch.cancelled,
        )

    async def get(self, tenant: str, store_id: str, batch_id: str) -> FileBatch:
        this = {"of_tenant": tenant, "of_id": store_id, "of_batch": batch_id}
        row = await self._transaction.first(GET, **this)
        if row is None:
            raise missing(batch_id)
        counts = {each.status: each.files for each in await self._transaction.rows(COUNTS, **this)}
        return FileBatch(
            id=row.id,
            store_id=row.store_id,
            created_at=row.created_at,
            cancelled=row.cancelled,
            counts=FileCounts(**counts),
        )

    async def cancel(self, tenant: str, store_id: str, batch_id: str) -> None:
        this = {"of_tenant": tenant, "of_id": store_id, "of_batch": batch_id}
        if await self._transaction.first(logs.LOCK, of_tenant=tenant, of_id=store_id) is None:
            raise missing(batch_id)
        if not await self._transaction.run(CANCEL, **this):
            raise missing(batch_id)
        await self._transaction.rows(LOCK_JOBS, **this)
        await self._transaction.run(CANCEL_JOBS, **this)
