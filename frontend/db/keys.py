"""Tenants and their API keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Row, Text, bindparam, case, func, insert, or_, select, text, update

from frontend.db.models import ApiKeyRow
from frontend.db.paging import read_page
from frontend.db.quotas import ensure_tenant
from frontend.db.transaction import ID, TENANT, Transaction
from frontend.domain.api_keys import ApiKey
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.errors import NotFound
from frontend.domain.limits import Limits

THIS = (ApiKeyRow.tenant == TENANT) & (ApiKeyRow.id == ID)
EXPIRES = bindparam("expires", type_=BigInteger())
REVOKED = bindparam("revoked", type_=BigInteger())
SUCCESSOR = bindparam("successor", type_=Text())

ADD = insert(ApiKeyRow)
ALL = select(*ApiKeyRow.__table__.columns)
FIND = ALL.where(ApiKeyRow.id == ID)
HOLD = ALL.where(THIS).with_for_update()
END = (
    update(ApiKeyRow)
    .where(THIS)
    .values(
        expires_at=case(
            (
                or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > EXPIRES),
                func.coalesce(EXPIRES, ApiKeyRow.expires_at),
            ),
            else_=ApiKeyRow.expires_at,
        ),
        revoked_at=func.coalesce(ApiKeyRow.revoked_at, REVOKED),
        replaced_by=func.coalesce(ApiKeyRow.replaced_by, SUCCESSOR),
    )
    .returning(*ApiKeyRow.__table__.columns)
)
TOUCH_SQLITE = text(
    "UPDATE api_keys SET last_used_at = used.value FROM json_each(:used) AS used"
    " WHERE api_keys.id = used.key AND coalesce(last_used_at, 0) < used.value"
)
# In the order of their ids, so that two processes do not wait for each other.
TOUCH_POSTGRES = text(
    "WITH used AS (SELECT key, CAST(value AS bigint) AS at FROM jsonb_each_text(CAST(:used AS jsonb))),"
    " held AS (SELECT id, used.at FROM api_keys JOIN used ON id = used.key ORDER BY id FOR NO KEY UPDATE OF api_keys)"
    " UPDATE api_keys SET last_used_at = held.at FROM held"
    " WHERE api_keys.id = held.id AND coalesce(last_used_at, 0) < held.at"
)


def load(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        digest=row.digest,
        scopes=frozenset(row.scopes),
        created_at=row.created_at,
        created_by=row.created_by,
        profile=row.profile,
        limits=msgspec.convert(row.limits, Limits),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        replaced_by=row.replaced_by,
    )


def missing(key_id: str) -> NotFound:
    return NotFound(f"No API key found with id {key_id!r}.")


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
            created_by=key.created_by,
            profile=key.profile,
            limits=limits_body(key.limits),
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            last_used_at=key.last_used_at,
            replaced_by=key.replaced_by,
        )

    async def find(self, key_id: str) -> ApiKey | None:
        row = await self._transaction.first(FIND, of_id=key_id)
        return None if row is None else load(row)

    async def page(self, tenant: str | None, page: PageRequest) -> Page[ApiKey]:
        query = ALL if tenant is None else ALL.where(ApiKeyRow.tenant == tenant)
        order = (ApiKeyRow.created_at, ApiKeyRow.id)
        return await read_page(self._transaction, query, page, order, ApiKeyRow.id == page.after, load)

    async def hold(self, tenant: str, key_id: str) -> ApiKey:
        row = await self._transaction.first(HOLD, of_tenant=tenant, of_id=key_id)
        if row is None:
            raise missing(key_id)
        return load(row)

    async def end(
        self,
        tenant: str,
        key_id: str,
        *,
        expires_at: int | None = None,
        revoked_at: int | None = None,
        replaced_by: str | None = None,
    ) -> ApiKey:
        row = await self._transaction.first(
            END, of_tenant=tenant, of_id=key_id, expires=expires_at, revoked=revoked_at, successor=replaced_by
        )
        if row is None:
            raise missing(key_id)
        return load(row)

    async def touch(self, used: Mapping[str, int]) -> None:
        statement = TOUCH_SQLITE if self._transaction.is_sqlite else TOUCH_POSTGRES
        await self._transaction.run(statement, used=json.dumps(dict(used)))


def limits_body(limits: Limits) -> dict[str, int]:
    """Without those that are none."""
    return {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}
