"""Items of conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Executable, Row, Text, bindparam, delete, select, update

from frontend.db import conversations
from frontend.db.codec import decode_item
from frontend.db.models import ConversationRow, ItemRow
from frontend.db.paging import read_page
from frontend.db.transaction import ID, MOST, TENANT, Transaction
from frontend.domain.conversations import Conversation, Page, PageRequest
from frontend.domain.errors import NotFound
from frontend.domain.items import Item, StoredItem

COLUMNS = (ItemRow.seq, ItemRow.position, ItemRow.response_id, ItemRow.created_at, ItemRow.body)
ITEM_ID = bindparam("item_id", type_=Text())
ITEM_IDS = bindparam("item_ids", type_=Text(), expanding=True)

ALL = select(*COLUMNS).where(ItemRow.tenant == TENANT, ItemRow.conversation_id == ID).order_by(ItemRow.seq)
BEHIND = ALL.where(ItemRow.seq > bindparam("seq", type_=BigInteger()))
BETWEEN = BEHIND.where(ItemRow.seq <= bindparam("upto", type_=BigInteger())).limit(MOST)
LEADING = ALL.limit(MOST)
ONE = ALL.where(ItemRow.id == ITEM_ID).limit(1)
FIND = select(ItemRow.id, ItemRow.body).where(ItemRow.tenant == TENANT, ItemRow.id.in_(ITEM_IDS))
CHANGED = (
    update(ConversationRow)
    .where(conversations.THIS)
    .values(version=ConversationRow.version + 1, item_count=ConversationRow.item_count - 1)
    .returning(*conversations.COLUMNS)
)
DELETE = delete(ItemRow).where(ItemRow.row.in_(ONE.with_only_columns(ItemRow.row)))


def load(row: Row[Any]) -> StoredItem:
    return StoredItem(
        item=decode_item(row.body),
        seq=row.position if row.seq is None else row.seq,
        response_id=row.response_id,
        created_at=row.created_at,
    )


def missing(item_id: str) -> NotFound:
    return NotFound(f"No item found with id {item_id!r}.")


class SqlItems:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def behind(self, tenant: str, conversation_id: str, seq: int) -> list[StoredItem]:
        return await self._some(BEHIND, tenant, conversation_id, seq=seq)

    async def between(self, tenant: str, conversation_id: str, *, after: int, upto: int, most: int) -> list[StoredItem]:
        return await self._some(BETWEEN, tenant, conversation_id, seq=after, upto=upto, most=most)

    async def leading(self, tenant: str, conversation_id: str, most: int) -> list[StoredItem]:
        return await self._some(LEADING, tenant, conversation_id, most=most)

    async def _some(self, query: Executable, tenant: str, conversation_id: str, **values: int) -> list[StoredItem]:
        rows = await self._transaction.rows(query, of_tenant=tenant, of_id=conversation_id, **values)
        if not rows:
            await conversations.require(self._transaction, tenant, conversation_id)
        return [load(row) for row in rows]

    async def page(self, tenant: str, conversation_id: str, page: PageRequest) -> Page[StoredItem]:
        query = select(*COLUMNS).where(ItemRow.tenant == tenant, ItemRow.conversation_id == conversation_id)
        found = await read_page(self._transaction, query, page, [ItemRow.seq], ItemRow.id == page.after, load)
        if not found.data:
            await conversations.require(self._transaction, tenant, conversation_id)
        return found

    async def get(self, tenant: str, conversation_id: str, item_id: str) -> StoredItem:
        row = await self._transaction.first(ONE, of_tenant=tenant, of_id=conversation_id, item_id=item_id)
        if row is None:
            raise missing(item_id)
        return load(row)

    async def find(self, tenant: str, item_ids: Sequence[str]) -> dict[str, Item]:
        rows = await self._transaction.rows(FIND, of_tenant=tenant, item_ids=item_ids)
        return {row.id: decode_item(row.body) for row in rows}

    async def delete(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        if not await self._transaction.run(DELETE, of_tenant=tenant, of_id=conversation_id, item_id=item_id):
            await conversations.require(self._transaction, tenant, conversation_id)
            raise missing(item_id)
        row = await self._transaction.first(CHANGED, of_tenant=tenant, of_id=conversation_id)
        if row is None:
            raise conversations.missing(conversation_id)
        return conversations.load(row)
