"""How much a tenant keeps, counted while nobody else can add to it."""

from __future__ import annotations

from sqlalchemy import func, literal, select, text

from frontend.db.models import ConversationRow, SessionRow, TenantRow
from frontend.db.transaction import MOST, TENANT, Transaction
from frontend.domain.errors import QuotaExceeded

Counted = type[ConversationRow] | type[SessionRow]

# FOR NO KEY UPDATE, so that foreign keys can be checked meanwhile. On SQLite the transaction holds everything already.
HOLD = select(TenantRow.name).where(TenantRow.name == TENANT).with_for_update(key_share=True)
ENSURE = text("INSERT INTO tenants (name, created_at) VALUES (:name, :now) ON CONFLICT DO NOTHING")
COUNT = {
    table: select(func.count()).select_from(
        select(literal(1)).select_from(table).where(table.tenant == TENANT).limit(MOST).subquery()
    )
    for table in (ConversationRow, SessionRow)
}


async def require_room(transaction: Transaction, tenant: str, table: Counted, most: int, now: int) -> None:
    """Holds the tenant's row until the transaction ends. Raises QuotaExceeded if `table` has `most` of its rows."""
    if await transaction.first(HOLD, of_tenant=tenant) is None:
        await ensure_tenant(transaction, tenant, now)
        await transaction.first(HOLD, of_tenant=tenant)
    counted = await transaction.first(COUNT[table], of_tenant=tenant, most=most)
    if counted is not None and counted[0] >= most:
        raise QuotaExceeded(f"You keep {most} {table.__tablename__}, the most you may. Please delete some.")


async def ensure_tenant(transaction: Transaction, tenant: str, now: int) -> None:
    await transaction.run(ENSURE, name=tenant, now=now)
