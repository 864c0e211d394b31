"""The audit log. Triggers refuse what is not an addition (migration 0003)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, insert, select

from frontend.db.models import AuditRow
from frontend.db.transaction import Transaction
from frontend.domain.api_keys import AuditEntry

ADD = insert(AuditRow)
NEWEST = select(*AuditRow.__table__.columns).order_by(AuditRow.id.desc())


def load(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        tenant=row.tenant,
        target=row.target,
        request_id=row.request_id,
        client=row.client,
        detail=row.detail,
    )


class SqlAudit:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, entry: AuditEntry) -> None:
        await self._transaction.run(
            ADD,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            tenant=entry.tenant,
            target=entry.target,
            request_id=entry.request_id,
            client=entry.client,
            detail=dict(entry.detail),
        )

    async def page(self, tenant: str | None, *, before: int | None, limit: int) -> list[AuditEntry]:
        query = NEWEST.limit(limit)
        if tenant is not None:
            query = query.where(AuditRow.tenant == tenant)
        if before is not None:
            query = query.where(AuditRow.id < before)
        return [load(row) for row in await self._transaction.rows(query)]
