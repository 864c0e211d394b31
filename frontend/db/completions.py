"""Chat completions that their requests asked to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from frontend.db.labels import OF_COMPLETIONS
from frontend.db.models import CompletionRow
from frontend.db.paging import read_page
from frontend.db.transaction import ID, TENANT, Transaction
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.errors import NotFound
from frontend.domain.storage import StoredCompletion

COLUMNS = CompletionRow.__table__.columns
THIS = (CompletionRow.tenant == TENANT) & (CompletionRow.id == ID)

ADD = insert(CompletionRow)
GET = select(*COLUMNS).where(THIS)
SET_METADATA = update(CompletionRow).where(THIS).returning(*COLUMNS)
DELETE = delete(CompletionRow).where(THIS)


def load(row: Row[Any]) -> StoredCompletion:
    return StoredCompletion(
        id=row.id,
        model=row.model,
        created_at=row.created_at,
        metadata=row.metadata,
        body=row.body,
        messages=row.messages,
    )


def missing(completion_id: str) -> NotFound:
    return NotFound(f"No chat completion found with id {completion_id!r}.")


class SqlCompletions:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, tenant: str, completion: StoredCompletion) -> None:
        await self._transaction.run(
            ADD,
            tenant=tenant,
            id=completion.id,
            model=completion.model,
            created_at=completion.created_at,
            metadata=dict(completion.metadata),
            body=completion.body,
            messages=completion.messages,
        )
        await OF_COMPLETIONS.add(self._transaction, tenant, completion.id, completion.created_at, completion.metadata)

    async def get(self, tenant: str, completion_id: str) -> StoredCompletion:
        row = await self._transaction.first(GET, of_tenant=tenant, of_id=completion_id)
        if row is None:
            raise missing(completion_id)
        return load(row)

    async def page(
        self, tenant: str, page: PageRequest, *, model: str | None, metadata: Mapping[str, str]
    ) -> Page[StoredCompletion]:
        query = select(*COLUMNS).where(CompletionRow.tenant == tenant)
        if model is not None:
            query = query.where(CompletionRow.model == model)
        query, keys = OF_COMPLETIONS.among(query, tenant, metadata)
        return await read_page(self._transaction, query, page, keys, CompletionRow.id == page.after, load)

    async def set_metadata(
        self, tenant: str, completion_id: str, metadata: Mapping[str, str], body: bytes
    ) -> StoredCompletion:
        row = await self._transaction.first(
            SET_METADATA, of_tenant=tenant, of_id=completion_id, metadata=dict(metadata), body=body
        )
        if row is None:
            raise missing(completion_id)
        await OF_COMPLETIONS.replace(self._transaction, tenant, completion_id, row.created_at, metadata)
        return load(row)

    async def delete(self, tenant: str, completion_id: str) -> None:
        if not await self._transaction.run(DELETE, of_tenant=tenant, of_id=completion_id):
            raise missing(completion_id)
