"""Tenants and their API keys."""

from __future__ import annotations

from sqlalchemy import insert, select

from frontend.db.models import ApiKeyRow
from frontend.db.quotas import ensure_tenant
from frontend.db.transaction import ID, Transaction
from frontend.domain.storage import ApiKey

ADD = insert(ApiKeyRow)
FIND = select(*ApiKeyRow.__table__.columns).where(ApiKeyRow.id == ID)


class SqlKeys:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def ensure_tenant(self, tenant: str, now: int) -> None:
        await ensure_tenant(self._transaction, tenant, now)

    async def add(self, tenant: str, key: ApiKey) -> None:
        await self._transaction.run(
            ADD,
            id=key.id,
            tenant=tenant,
            name=key.name,
            digest=key.digest,
            scopes=sorted(key.scopes),
            created_at=key.created_at,
            profile=key.profile,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
        )

    async def find(self, key_id: str) -> ApiKey | None:
        row = await self._transaction.first(FIND, of_id=key_id)
        if row is None:
            return None
        return ApiKey(
            id=row.id,
            tenant=row.tenant,
            name=row.name,
            digest=row.digest,
            scopes=frozenset(row.scopes),
            created_at=row.created_at,
            profile=row.profile,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )
