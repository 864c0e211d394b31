"""Idempotency-Keys, and the replies that their requests were answered with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Double,
    LargeBinary,
    Row,
    Text,
    bindparam,
    delete,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from frontend.db.models import IdempotencyRow
from frontend.db.transaction import MOST, NOW, TENANT, Transaction
from frontend.domain.idempotency import IdempotencyRecord, StoredReply

COLUMNS = IdempotencyRow.__table__.columns
KEY = bindparam("of_key", type_=Text())
OWNER = bindparam("of_owner", type_=Text())
THIS = (IdempotencyRow.tenant == TENANT) & (IdempotencyRow.key == KEY)
MINE = THIS & (IdempotencyRow.owner == OWNER) & IdempotencyRow.status.is_(None)
BEFORE: BindParameter[float] = bindparam("before_lease", type_=Double())
FIRST = ("fingerprint", "owner", "lease_until", "created_at", "expires_at", "status", "content_type", "body")
"""All columns that are not the key: one that has expired begins anew."""


def claiming(insert: Any) -> Any:
    """`insert`: the dialect's own, which both spell alike."""
    statement = insert(IdempotencyRow)
    return statement.on_conflict_do_update(
        index_elements=["tenant", "key"],
        set_={name: statement.excluded[name] for name in FIRST},
        where=IdempotencyRow.expires_at <= NOW,
    )


CLAIM = {True: claiming(sqlite.insert), False: claiming(postgresql.insert)}
"""By whether it is SQLite."""
GET = select(*COLUMNS).where(THIS)
TAKE_OVER = (
    update(IdempotencyRow)
    .where(MINE & (IdempotencyRow.lease_until == BEFORE))
    .values(
        owner=bindparam("new_owner", type_=Text()),
        lease_until=bindparam("new_lease", type_=Double()),
        created_at=bindparam("new_created", type_=BigInteger()),
        expires_at=bindparam("new_end", type_=BigInteger()),
    )
)
RENEW = update(IdempotencyRow).where(MINE).values(lease_until=bindparam("new_lease", type_=Double()))
ANSWER = (
    update(IdempotencyRow)
    .where(MINE)
    .values(
        status=bindparam("new_status", type_=BigInteger()),
        content_type=bindparam("new_type", type_=Text()),
        body=bindparam("new_body", type_=LargeBinary()),
    )
)
GIVE_UP = delete(IdempotencyRow).where(MINE)
IDENTITY = (IdempotencyRow.tenant, IdempotencyRow.key)
EXPIRED = select(*IDENTITY).where(IdempotencyRow.expires_at <= NOW).limit(MOST).with_for_update(skip_locked=True)
DELETE_EXPIRED = delete(IdempotencyRow).where(tuple_(*IDENTITY).in_(EXPIRED))


def load(row: Row[Any]) -> IdempotencyRecord:
    reply = None
    if row.status is not None:
        reply = StoredReply(status=row.status, content_type=row.content_type, body=row.body)
    return IdempotencyRecord(
        key=row.key,
        fingerprint=row.fingerprint,
        owner=row.owner,
        lease_until=row.lease_until,
        created_at=row.created_at,
        expires_at=row.expires_at,
        reply=reply,
    )


class SqlIdempotencyKeys:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def claim(self, tenant: str, record: IdempotencyRecord, now: float) -> IdempotencyRecord | None:
        first = {
            "tenant": tenant,
            "key": record.key,
            "fingerprint": record.fingerprint,
            "owner": record.owner,
            "lease_until": record.lease_until,
            "created_at": record.created_at,
            "expires_at": record.expires_at,
            "status": None,
            "content_type": None,
            "body": None,
        }
        while not await self._transaction.run(CLAIM[self._transaction.is_sqlite], **first, now=int(now)):
            if (row := await self._transaction.first(GET, of_tenant=tenant, of_key=record.key)) is not None:
                return load(row)
            # It was given up between the two statements.
        return None

    async def take_over(self, tenant: str, record: IdempotencyRecord, before: IdempotencyRecord) -> bool:
        changed = await self._transaction.run(
            TAKE_OVER,
            of_tenant=tenant,
            of_key=before.key,
            of_owner=before.owner,
            before_lease=before.lease_until,
            new_owner=record.owner,
            new_lease=record.lease_until,
            new_created=record.created_at,
            new_end=record.expires_at,
        )
        return changed == 1

    async def renew(self, owner: str, keys: Sequence[tuple[str, str]], lease_until: float) -> None:
        rows = [
            {"of_tenant": tenant, "of_key": key, "of_owner": owner, "new_lease": lease_until} for tenant, key in keys
        ]
        await self._transaction.run_many(RENEW, rows)

    async def answer(self, tenant: str, key: str, owner: str, reply: StoredReply) -> None:
        await self._transaction.run(
            ANSWER,
            of_tenant=tenant,
            of_key=key,
            of_owner=owner,
            new_status=reply.status,
            new_type=reply.content_type,
            new_body=reply.body,
        )

    async def give_up(self, tenant: str, key: str, owner: str) -> None:
        await self._transaction.run(GIVE_UP, of_tenant=tenant, of_key=key, of_owner=owner)

    async def delete_expired(self, now: int, most: int) -> int:
        return await self._transaction.run(DELETE_EXPIRED, now=now, most=most)
