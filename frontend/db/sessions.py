"""Sessions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, case, delete, insert, select, tuple_, update

from frontend.db.models import SessionRow
from frontend.db.quotas import require_room
from frontend.db.transaction import ID, MOST, NOW, TENANT, Transaction
from frontend.domain.conversations import Session
from frontend.domain.errors import NotFound

THIS = (SessionRow.tenant == TENANT) & (SessionRow.id == ID)
IDLE_END = SessionRow.idle_timeout_s + NOW

ADD = insert(SessionRow)
GET = select(*SessionRow.__table__.columns).where(THIS)
TOUCH = (
    update(SessionRow)
    .where(THIS)
    .values(
        last_used_at=NOW,
        ends_at=case((SessionRow.expires_at < IDLE_END, SessionRow.expires_at), else_=IDLE_END),
    )
)
DELETE = delete(SessionRow).where(THIS)
ENDED = (
    select(SessionRow.tenant, SessionRow.id).where(SessionRow.ends_at <= NOW).order_by(SessionRow.ends_at).limit(MOST)
)
DELETE_ENDED = delete(SessionRow).where(tuple_(SessionRow.tenant, SessionRow.id).in_(ENDED))


def load(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        conversation_id=row.conversation_id,
        metadata=row.metadata,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        idle_timeout_s=row.idle_timeout_s,
        expires_at=row.expires_at,
    )


def missing(session_id: str) -> NotFound:
    return NotFound(f"No session found with id {session_id!r}.")


class SqlSessions:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, tenant: str, session: Session, most: int) -> None:
        await require_room(self._transaction, tenant, SessionRow, most, session.created_at)
        await self._transaction.run(
            ADD,
            tenant=tenant,
            id=session.id,
            conversation_id=session.conversation_id,
            metadata=dict(session.metadata),
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            idle_timeout_s=session.idle_timeout_s,
            expires_at=session.expires_at,
            ends_at=min(session.expires_at, session.last_used_at + session.idle_timeout_s),
        )

    async def get(self, tenant: str, session_id: str) -> Session:
        row = await self._transaction.first(GET, of_tenant=tenant, of_id=session_id)
        if row is None:
            raise missing(session_id)
        return load(row)

    async def touch(self, tenant: str, session_id: str, now: int) -> None:
        if not await self._transaction.run(TOUCH, of_tenant=tenant, of_id=session_id, now=now):
            raise missing(session_id)

    async def delete(self, tenant: str, session_id: str) -> None:
        if not await self._transaction.run(DELETE, of_tenant=tenant, of_id=session_id):
            raise missing(session_id)

    async def delete_expired(self, now: int, most: int) -> int:
        return await self._transaction.run(DELETE_ENDED, now=now, most=most)
