"""Responses: their records, and the items that were their input and output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Row, Text, bindparam, case, delete, insert, literal, select, update

from frontend.db import conversations, items
from frontend.db.codec import decode_item, encode_item
from frontend.db.events import THIS, SqlEvents, missing
from frontend.db.models import ItemRow, ResponseRow, TurnRow
from frontend.db.paging import read_page
from frontend.db.transaction import ID, TENANT
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.generation import Usage
from frontend.domain.items import Item, StoredItem
from frontend.domain.responses import RUNNING, Response, ResponseError

COLUMNS = ResponseRow.__table__.columns
USABLE = ("completed", "incomplete")
"""What a next turn may build on."""
ITS_ITEMS = (ItemRow.tenant == TENANT) & (ItemRow.response_id == ID)

ADD = insert(ResponseRow)
ADD_ITEM = insert(ItemRow)
GET = select(*COLUMNS).where(THIS)
OUTPUT = select(ItemRow.body).where(ITS_ITEMS, ItemRow.is_output).order_by(ItemRow.position)
START = update(ResponseRow).where(THIS, ResponseRow.status == "queued").values(status="in_progress")
END = (
    update(ResponseRow)
    .where(THIS, ResponseRow.status.in_(RUNNING))
    .returning(ResponseRow.conversation_id, ResponseRow.input_count)
)
NUMBER = (
    update(ItemRow)
    .where(ITS_ITEMS)
    .values(
        conversation_id=bindparam("its_conversation", type_=Text()),
        seq=bindparam("before", type_=BigInteger())
        + ItemRow.position
        + case((ItemRow.is_output, bindparam("inputs", type_=BigInteger())), else_=0),
    )
)
# In the order of conversations.DELETE: the response is held before its items are touched.
DELETE = (
    delete(TurnRow).where(TurnRow.tenant == TENANT, TurnRow.id == ID),
    select(ResponseRow.id).where(THIS).with_for_update(),
    update(ItemRow).where(ITS_ITEMS, ItemRow.seq.is_not(None)).values(response_id=None, position=None),
    delete(ResponseRow).where(THIS),
)

LINK = (ResponseRow.id, ResponseRow.previous_response_id, ResponseRow.status)
LAST = select(*LINK, literal(0).label("depth")).where(THIS).cte("chain", recursive=True)
LINKS = LAST.union_all(
    select(*LINK, LAST.c.depth + 1).where(ResponseRow.tenant == TENANT, ResponseRow.id == LAST.c.previous_response_id)
)
CHAIN = (
    select(LINKS, ItemRow.body, ItemRow.created_at)
    .outerjoin(ItemRow, (ItemRow.tenant == TENANT) & (ItemRow.response_id == LINKS.c.id))
    .order_by(LINKS.c.depth.desc(), ItemRow.is_output, ItemRow.position)
)
"""The oldest response first, each with its items; one row for a response that has none."""


def load(row: Row[Any], output: Sequence[Item]) -> Response:
    counted = row.prompt_tokens is not None
    return Response(
        id=row.id,
        model=row.model,
        status=row.status,
        parameters=row.parameters,
        created_at=row.created_at,
        completed_at=row.completed_at,
        previous_response_id=row.previous_response_id,
        conversation_id=row.conversation_id,
        background=row.background,
        dropped=row.dropped,
        degraded=row.degraded.split(",") if row.degraded else (),
        error=None if row.error_code is None else ResponseError(row.error_code, row.error_message),
        incomplete_reason=row.incomplete_reason,
        usage=Usage(row.prompt_tokens, row.completion_tokens, row.cached_tokens) if counted else None,
        output=output,
    )


def outcome(response: Response) -> dict[str, object]:
    """The columns that tell how it went: they change when it ends."""
    error, usage = response.error, response.usage
    return {
        "status": response.status,
        "completed_at": response.completed_at,
        "dropped": response.dropped,
        "degraded": ",".join(response.degraded) or None,
        "error_code": None if error is None else error.code,
        "error_message": None if error is None else error.message,
        "incomplete_reason": response.incomplete_reason,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
        "cached_tokens": None if usage is None else usage.cached_tokens,
    }


class SqlResponses(SqlEvents):
    async def add(self, tenant: str, response: Response, input_items: Sequence[Item]) -> None:
        await self._transaction.run(
            ADD,
            tenant=tenant,
            id=response.id,
            model=response.model,
            parameters=response.parameters,
            created_at=response.created_at,
            previous_response_id=response.previous_response_id,
            conversation_id=response.conversation_id,
            background=response.background,
            input_count=len(input_items),
            has_events=False,
            **outcome(response),
        )
        await self._add_items(tenant, response, input_items, is_output=False)
        await self._add_items(tenant, response, response.output, is_output=True)

    async def get(self, tenant: str, response_id: str) -> Response:
        row = await self._transaction.first(GET, of_tenant=tenant, of_id=response_id)
        if row is None:
            raise missing(response_id)
        output = await self._transaction.rows(OUTPUT, of_tenant=tenant, of_id=response_id)
        return load(row, [decode_item(body) for (body,) in output])

    async def start(self, tenant: str, response_id: str) -> bool:
        started = await self._transaction.run(START, of_tenant=tenant, of_id=response_id)
        if not started:
            await self._require(tenant, response_id)
        return bool(started)

    async def end(self, tenant: str, response: Response) -> bool:
        row = await self._transaction.first(END, of_tenant=tenant, of_id=response.id, **outcome(response))
        if row is None:
            return False
        await self._add_items(tenant, response, response.output, is_output=True)
        if row.conversation_id is not None and response.status in USABLE:
            await self._number(tenant, response, row.conversation_id, row.input_count)
        return True

    async def _number(self, tenant: str, response: Response, conversation_id: str, inputs: int) -> None:
        """Input and output become the newest items of the conversation."""
        more = inputs + len(response.output)
        now = response.completed_at or response.created_at
        grown = await self._transaction.first(
            conversations.GROW, of_tenant=tenant, of_id=conversation_id, more=more, now=now
        )
        if grown is None:
            raise conversations.missing(conversation_id)
        place = {"its_conversation": conversation_id, "before": grown.head - more, "inputs": inputs}
        await self._transaction.run(NUMBER, of_tenant=tenant, of_id=response.id, **place)

    async def _add_items(self, tenant: str, response: Response, several: Sequence[Item], *, is_output: bool) -> None:
        came_at = (response.completed_at or response.created_at) if is_output else response.created_at
        new = [
            {
                "tenant": tenant,
                "id": item.id,
                "response_id": response.id,
                "is_output": is_output,
                "position": position,
                "created_at": came_at,
                "body": encode_item(item),
            }
            for position, item in enumerate(several, 1)
        ]
        await self._transaction.run_many(ADD_ITEM, new)

    async def input_page(self, tenant: str, response_id: str, page: PageRequest) -> Page[StoredItem]:
        await self._require(tenant, response_id)
        query = select(*items.COLUMNS).where(
            ItemRow.tenant == tenant, ItemRow.response_id == response_id, ItemRow.is_output.is_(False)
        )
        return await read_page(self._transaction, query, page, [ItemRow.position], ItemRow.id == page.after, items.load)

    async def chain(self, tenant: str, response_id: str) -> list[StoredItem]:
        rows = await self._transaction.rows(CHAIN, of_tenant=tenant, of_id=response_id)
        if not rows or rows[0].previous_response_id is not None:
            raise missing(rows[0].previous_response_id if rows else response_id)
        for row in rows:
            if row.status not in USABLE:
                raise missing(row.id)
        kept = [row for row in rows if row.body is not None]
        return [
            StoredItem(item=decode_item(row.body), seq=seq, response_id=row.id, created_at=row.created_at)
            for seq, row in enumerate(kept, 1)
        ]

    async def delete(self, tenant: str, response_id: str) -> None:
        """The foreign keys take its events, and its items that are no conversation's."""
        deleted = 0
        for statement in DELETE:
            deleted = await self._transaction.run(statement, of_tenant=tenant, of_id=response_id)
        if not deleted:
            raise missing(response_id)
