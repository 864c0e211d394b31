"""Events of responses, one row for each batch that came."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, bindparam, delete, insert, literal, select, tuple_, update

from frontend.db.codec import decode_events, encode_events
from frontend.db.models import EventBatchRow, ResponseRow
from frontend.db.transaction import ID, MOST, TENANT, Transaction
from frontend.domain.errors import NotFound
from frontend.domain.responses import ResponseEvent

THIS = (ResponseRow.tenant == TENANT) & (ResponseRow.id == ID)

ADD = insert(EventBatchRow)
EXISTS = select(literal(1)).where(THIS)
HAS_EVENTS = update(ResponseRow).where(THIS).values(has_events=True)
BEHIND = (
    select(EventBatchRow.body)
    .where(EventBatchRow.tenant == TENANT, EventBatchRow.response_id == ID)
    .where(EventBatchRow.last > bindparam("after", type_=BigInteger()))
    .order_by(EventBatchRow.first)
)
OLD = (
    select(ResponseRow.tenant, ResponseRow.id)
    .where(ResponseRow.has_events, ResponseRow.completed_at < bindparam("before", type_=BigInteger()))
    .order_by(ResponseRow.completed_at)
    .limit(MOST)
)


def missing(response_id: str) -> NotFound:
    return NotFound(f"No response found with id {response_id!r}.")


class SqlEvents:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add_events(self, tenant: str, response_id: str, events: Sequence[ResponseEvent]) -> None:
        """`has_events` is set with the first of them: `delete_events` finds by it what there is to delete."""
        if not events:
            return
        first, last, body = events[0].n, events[-1].n, encode_events(events)
        await self._transaction.run(ADD, tenant=tenant, response_id=response_id, first=first, last=last, body=body)
        if first == 0:
            await self._transaction.run(HAS_EVENTS, of_tenant=tenant, of_id=response_id)

    async def events(self, tenant: str, response_id: str, after: int) -> list[ResponseEvent]:
        batches = await self._transaction.rows(BEHIND, of_tenant=tenant, of_id=response_id, after=after)
        if not batches:
            await self._require(tenant, response_id)
        return [event for (body,) in batches for event in decode_events(body) if event.n > after]

    async def delete_events(self, before: int, most: int) -> int:
        found = [(row.tenant, row.id) for row in await self._transaction.rows(OLD, before=before, most=most)]
        if found:
            of_found = tuple_(EventBatchRow.tenant, EventBatchRow.response_id).in_(found)
            await self._transaction.run(delete(EventBatchRow).where(of_found))
            is_found = tuple_(ResponseRow.tenant, ResponseRow.id).in_(found)
            await self._transaction.run(update(ResponseRow).where(is_found).values(has_events=False))
        return len(found)

    async def _require(self, tenant: str, response_id: str) -> None:
        """Raises NotFound if there is no such response."""
        if await self._transaction.first(EXISTS, of_tenant=tenant, of_id=response_id) is None:
            raise missing(response_id)
