"""Running turns, and who holds which conversation. The unique index decides, whatever happens at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Double, Text, bindparam, delete, select, text, update

from frontend.db.models import ResponseRow, TurnRow
from frontend.db.transaction import ID, TENANT, Transaction
from frontend.domain.errors import ConversationLocked
from frontend.domain.responses import RUNNING
from frontend.domain.storage import Turn

GONE = "The process that ran this turn has ended."
OWNER = bindparam("of_owner", type_=Text())
IDS = bindparam("ids", type_=Text(), expanding=True)
AT_ONCE = 500
"""Turns that one statement renews."""

BEGIN = text(
    "INSERT INTO turns (tenant, id, conversation_id, owner, lease_until)"
    " VALUES (:tenant, :id, :conversation_id, :owner, :lease_until)"
    " ON CONFLICT (tenant, conversation_id) DO NOTHING"
)
EXPIRED = (
    delete(TurnRow)
    .where(TurnRow.tenant == TENANT, TurnRow.conversation_id == ID)
    .where(TurnRow.lease_until <= bindparam("moment", type_=Double()))
    .returning(TurnRow.id)
)
FAILED = (
    update(ResponseRow)
    .where(ResponseRow.tenant == TENANT, ResponseRow.id == ID, ResponseRow.status.in_(RUNNING))
    .values(status="failed", error_code="server_error", error_message=GONE)
)
END = delete(TurnRow).where(TurnRow.tenant == TENANT, TurnRow.id == ID, TurnRow.owner == OWNER)
END_AS_SEEN = END.where(TurnRow.lease_until == bindparam("seen", type_=Double()))
RENEW = update(TurnRow).where(TurnRow.owner == OWNER, TurnRow.id.in_(IDS))
RUNNING_TURNS = select(TurnRow.id, TurnRow.tenant, TurnRow.conversation_id, TurnRow.owner, TurnRow.lease_until)


class SqlTurns:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def begin(self, turn: Turn, now: float) -> None:
        """Raises NotFound if there is no such conversation."""
        if await self._insert(turn):
            return
        await self._end_expired(turn, now)
        if not await self._insert(turn):
            raise ConversationLocked

    async def _insert(self, turn: Turn) -> bool:
        """False while there is another turn in its conversation; waits for one that is just being made or ended."""
        begun = await self._transaction.run(
            BEGIN,
            tenant=turn.tenant,
            id=turn.id,
            conversation_id=turn.conversation_id,
            owner=turn.owner,
            lease_until=turn.lease_until,
        )
        return bool(begun)

    async def _end_expired(self, turn: Turn, now: float) -> None:
        expired = await self._transaction.first(EXPIRED, of_tenant=turn.tenant, of_id=turn.conversation_id, moment=now)
        if expired is not None:
            await self._transaction.run(FAILED, of_tenant=turn.tenant, of_id=expired.id, completed_at=int(now))

    async def end(self, turn: Turn) -> bool:
        return bool(await self._transaction.run(END, of_tenant=turn.tenant, of_id=turn.id, of_owner=turn.owner))

    async def end_orphan(self, turn: Turn) -> bool:
        return bool(
            await self._transaction.run(
                END_AS_SEEN, of_tenant=turn.tenant, of_id=turn.id, of_owner=turn.owner, seen=turn.lease_until
            )
        )

    async def renew(self, owner: str, turn_ids: Sequence[str], lease_until: float) -> None:
        for first in range(0, len(turn_ids), AT_ONCE):
            some = turn_ids[first : first + AT_ONCE]
            await self._transaction.run(RENEW, of_owner=owner, ids=some, lease_until=lease_until)

    async def running(self) -> list[Turn]:
        return [Turn(**row._mapping) for row in await self._transaction.rows(RUNNING_TURNS)]
