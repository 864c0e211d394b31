"""Conversations: their records, their trims, and the sequence numbers of their items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Executable,
    Row,
    Text,
    bindparam,
    case,
    delete,
    exists,
    insert,
    literal,
    select,
    update,
)

from frontend.db.codec import encode_item
from frontend.db.labels import OF_CONVERSATIONS
from frontend.db.models import ConversationRow, ItemRow, ResponseRow, TurnRow
from frontend.db.paging import read_page
from frontend.db.quotas import require_room
from frontend.db.transaction import ID, MOST, NOW, TENANT, Transaction
from frontend.domain.conversations import ContextSettings, Conversation, ExpiresAfter, Page, PageRequest, Trim
from frontend.domain.errors import NotFound, QuotaExceeded
from frontend.domain.items import Item

COLUMNS = ConversationRow.__table__.columns
THIS = (ConversationRow.tenant == TENANT) & (ConversationRow.id == ID)
MORE = bindparam("more", type_=BigInteger())
IDS = bindparam("ids", type_=Text(), expanding=True)

ADD = insert(ConversationRow)
EXISTS = select(literal(1)).where(THIS)
ADD_ITEM = insert(ItemRow)
GET = select(*COLUMNS).where(THIS)
HOLD = GET.with_for_update(key_share=True)
"""Items may still name it as theirs; SQLite has one writer anyhow."""
UPDATE = update(ConversationRow).where(THIS)
SET_TRIM = (
    update(ConversationRow)
    .where(
        THIS,
        ConversationRow.trim_upto == bindparam("old_upto"),
        ConversationRow.trim_summarised_upto == bindparam("old_summarised_upto"),
        ConversationRow.trim_summary.is_not_distinct_from(bindparam("old_summary", type_=Text())),
    )
    .values(version=ConversationRow.version + 1)
    .returning(*COLUMNS)
)
GROW = (
    update(ConversationRow)
    .where(THIS)
    .values(
        head=ConversationRow.head + MORE,
        item_count=ConversationRow.item_count + MORE,
        version=ConversationRow.version + 1,
        last_active_at=NOW,
        expires_at=case(
            (ConversationRow.expires_anchor == "last_active_at", ConversationRow.expires_seconds + NOW),
            else_=ConversationRow.expires_at,
        ),
    )
    .returning(*COLUMNS)
)
"""Takes the next `more` sequence numbers: `head` is the last of them then."""
GROW_TO_MOST = GROW.where(ConversationRow.item_count + MORE <= MOST)
EXPIRED = (
    select(ConversationRow.tenant, ConversationRow.id)
    .where(
        ConversationRow.expires_at <= NOW,
        ~exists().where(TurnRow.tenant == ConversationRow.tenant, TurnRow.conversation_id == ConversationRow.id),
    )
    .order_by(ConversationRow.expires_at)
    .limit(MOST)
)
# In the order in which all others take their locks, so that nobody waits in a circle: turn, response, item, conversation,
# memory. The foreign keys take the rest: items of responses that are not numbered, events, sessions, the memory and its log.
DELETE = (
    delete(TurnRow).where(TurnRow.tenant == TENANT, TurnRow.conversation_id.in_(IDS)),
    delete(ResponseRow).where(ResponseRow.tenant == TENANT, ResponseRow.conversation_id.in_(IDS)),
    delete(ItemRow).where(ItemRow.tenant == TENANT, ItemRow.conversation_id.in_(IDS)),
    delete(ConversationRow).where(ConversationRow.tenant == TENANT, ConversationRow.id.in_(IDS)),
)


def load(row: Row[Any]) -> Conversation:
    anchor, seconds = row.expires_anchor, row.expires_seconds
    return Conversation(
        id=row.id,
        metadata=row.metadata,
        created_at=row.created_at,
        last_active_at=row.last_active_at,
        expires_after=None if anchor is None else ExpiresAfter(anchor=anchor, seconds=seconds),
        context=msgspec.convert(row.context, ContextSettings),
        profile=row.profile,
        trim=Trim(upto=row.trim_upto, summary=row.trim_summary, summarised_upto=row.trim_summarised_upto),
        head=row.head,
        item_count=row.item_count,
        version=row.version,
    )


def missing(conversation_id: str) -> NotFound:
    return NotFound(f"No conversation found with id {conversation_id!r}.")


async def require(transaction: Transaction, tenant: str, conversation_id: str) -> None:
    """Raises NotFound if there is no such conversation."""
    if await transaction.first(EXISTS, of_tenant=tenant, of_id=conversation_id) is None:
        raise missing(conversation_id)


class SqlConversations:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, tenant: str, conversation: Conversation, most: int) -> None:
        await require_room(self._transaction, tenant, ConversationRow, most, conversation.created_at)
        expires = conversation.expires_after
        await self._transaction.run(
            ADD,
            tenant=tenant,
            id=conversation.id,
            metadata=dict(conversation.metadata),
            created_at=conversation.created_at,
            last_active_at=conversation.last_active_at,
            expires_anchor=None if expires is None else expires.anchor,
            expires_seconds=None if expires is None else expires.seconds,
            expires_at=conversation.expires_at,
            context=msgspec.to_builtins(conversation.context),
            profile=conversation.profile,
            trim_upto=conversation.trim.upto,
            trim_summary=conversation.trim.summary,
            trim_summarised_upto=conversation.trim.summarised_upto,
            head=conversation.head,
            version=conversation.version,
            item_count=0,
        )
        await OF_CONVERSATIONS.add(
            self._transaction, tenant, conversation.id, conversation.created_at, conversation.metadata
        )

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        return await self._one(GET, tenant, conversation_id)

    async def hold(self, tenant: str, conversation_id: str) -> Conversation:
        return await self._one(HOLD, tenant, conversation_id)

    async def _one(self, query: Executable, tenant: str, conversation_id: str) -> Conversation:
        row = await self._transaction.first(query, of_tenant=tenant, of_id=conversation_id)
        if row is None:
            raise missing(conversation_id)
        return load(row)

    async def page(self, tenant: str, page: PageRequest, metadata: Mapping[str, str], now: int) -> Page[Conversation]:
        alive = ConversationRow.expires_at.is_(None) | (ConversationRow.expires_at > now)
        query = select(*COLUMNS).where(ConversationRow.tenant == tenant, alive)
        query, keys = OF_CONVERSATIONS.among(query, tenant, metadata)
        return await read_page(self._transaction, query, page, keys, ConversationRow.id == page.after, load)

    async def update(self, tenant: str, conversation: Conversation) -> None:
        expires = conversation.expires_after
        statement = UPDATE.values(expires_at=None)
        if expires is not None:
            anchors = {"created_at": ConversationRow.created_at, "last_active_at": ConversationRow.last_active_at}
            statement = UPDATE.values(expires_at=anchors[expires.anchor] + expires.seconds)
        changed = await self._transaction.run(
            statement,
            of_tenant=tenant,
            of_id=conversation.id,
            metadata=dict(conversation.metadata),
            expires_anchor=None if expires is None else expires.anchor,
            expires_seconds=None if expires is None else expires.seconds,
            context=msgspec.to_builtins(conversation.context),
            profile=conversation.profile,
        )
        if not changed:
            raise missing(conversation.id)
        await OF_CONVERSATIONS.replace(
            self._transaction, tenant, conversation.id, conversation.created_at, conversation.metadata
        )

    async def set_trim(self, tenant: str, conversation_id: str, before: Trim, after: Trim) -> Conversation | None:
        row = await self._transaction.first(
            SET_TRIM,
            of_tenant=tenant,
            of_id=conversation_id,
            old_upto=before.upto,
            old_summary=before.summary,
            old_summarised_upto=before.summarised_upto,
            trim_upto=after.upto,
            trim_summary=after.summary,
            trim_summarised_upto=after.summarised_upto,
        )
        if row is None:
            await require(self._transaction, tenant, conversation_id)
            return None
        return load(row)

    async def append(
        self, tenant: str, conversation_id: str, items: Sequence[Item], *, now: int, most: int
    ) -> Conversation:
        more = len(items)
        row = await self._transaction.first(
            GROW_TO_MOST, of_tenant=tenant, of_id=conversation_id, more=more, now=now, most=most
        )
        if row is None:
            await require(self._transaction, tenant, conversation_id)
            raise QuotaExceeded(f"A conversation holds {most} items at most.")
        new = [
            {
                "tenant": tenant,
                "id": item.id,
                "conversation_id": conversation_id,
                "seq": seq,
                "is_output": False,
                "created_at": now,
                "body": encode_item(item),
            }
            for seq, item in enumerate(items, row.head - more + 1)
        ]
        await self._transaction.run_many(ADD_ITEM, new)
        return load(row)

    async def delete(self, tenant: str, conversation_id: str) -> None:
        if not await self._delete(tenant, [conversation_id]):
            raise missing(conversation_id)

    async def delete_expired(self, now: int, most: int) -> list[tuple[str, str]]:
        expired = await self._transaction.rows(EXPIRED, now=now, most=most)
        for tenant in {row.tenant for row in expired}:
            await self._delete(tenant, [row.id for row in expired if row.tenant == tenant])
        return [(row.tenant, row.id) for row in expired]

    async def _delete(self, tenant: str, ids: Sequence[str]) -> int:
        """How many conversations there were."""
        deleted = 0
        for statement in DELETE:
            deleted = await self._transaction.run(statement, of_tenant=tenant, ids=ids)
        return deleted
