"""How much a tenant keeps, counted while nobody else can add to it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select, text

from frontend.db.document_models import FileRow, StoreFileRow, VectorStoreRow
from frontend.db.models import ConversationRow, SessionRow, TenantRow
from frontend.db.transaction import MOST, TENANT, Transaction
from frontend.domain.errors import QuotaExceeded


def counting(table: type[Any], *conditions: ColumnElement[bool]) -> Select[int]:
    """How many rows of the tenant meet `conditions`, `most` at most."""
    some = select(literal(1)).select_from(table).where(table.tenant == TENANT, *conditions).limit(MOST)
    return select(func.count()).select_from(some.subquery())


# FOR NO KEY UPDATE, so that foreign keys can be checked meanwhile. On SQLite the transaction holds everything already.
HOLD = select(TenantRow.name).where(TenantRow.name == TENANT).with_for_update(key_share=True)
ENSURE = text("INSERT INTO tenants (name, created_at) VALUES (:name, :now) ON CONFLICT DO NOTHING")
COUNT: dict[type[Any], tuple[str, Select[int]]] = {
    ConversationRow: ("conversations", counting(ConversationRow)),
    SessionRow: ("sessions", counting(SessionRow)),
    FileRow: ("files", counting(FileRow)),
    VectorStoreRow: ("vector stores", counting(VectorStoreRow, VectorStoreRow.kind == "documents")),
}
WAITING = select(func.count()).where(StoreFileRow.tenant == TENANT, StoreFileRow.status == text("'in_progress'"))
BYTES = select(func.sum(FileRow.size_bytes)).where(FileRow.tenant == TENANT)


async def hold(transaction: Transaction, tenant: str, now: int) -> None:
    """The tenant's row, until the transaction ends: before any other row is locked."""
    if await transaction.first(HOLD, of_tenant=tenant) is None:
        await ensure_tenant(transaction, tenant, now)
        await transaction.first(HOLD, of_tenant=tenant)


async def require_room(transaction: Transaction, tenant: str, table: type[Any], most: int, now: int) -> None:
    """Holds the tenant's row. Raises QuotaExceeded if `table` has `most` of its rows."""
    await hold(transaction, tenant, now)
    things, count = COUNT[table]
    counted = await transaction.first(count, of_tenant=tenant, most=most)
    if counted is not None and counted[0] >= most:
        raise QuotaExceeded(f"You keep {most} {things}, the most you may. Please delete some.")


async def require_bytes(transaction: Transaction, tenant: str, more_bytes: int, most_bytes: int) -> None:
    """The tenant's row is held. Raises QuotaExceeded if its files would have over `most_bytes` with `more_bytes`."""
    total = await transaction.first(BYTES, of_tenant=tenant)
    if total is not None and int(total[0] or 0) + more_bytes > most_bytes:
        raise QuotaExceeded(f"Your files may have {most_bytes} bytes in all. Please delete some.")


async def require_waiting(transaction: Transaction, tenant: str, more: int, most: int) -> None:
    """The tenant's row is held. Raises QuotaExceeded if over `most` files would be on their way into its stores."""
    waiting = await transaction.first(WAITING, of_tenant=tenant)
    if waiting is not None and waiting[0] + more > most:
        raise QuotaExceeded(f"At most {most} files are put into your vector stores at a time. Please wait for some.")


async def ensure_tenant(transaction: Transaction, tenant: str, now: int) -> None:
    await transaction.run(ENSURE, name=tenant, now=now)
