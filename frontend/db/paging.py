"""Pages of a list: behind a cursor, in one order, one row more than is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from frontend.db.transaction import Transaction
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.errors import InvalidRequest

T = TypeVar("T")
Column = InstrumentedAttribute[Any]


async def read_page(
    transaction: Transaction,
    query: Select[*tuple[Any, ...]],
    page: PageRequest,
    keys: Sequence[Column],
    cursor: ColumnElement[bool],
    load: Callable[[Row[Any]], T],
    *,
    within: Select[*tuple[Any, ...]] | None = None,
) -> Page[T]:
    """`query` without order; `keys`: what it is ordered by; `cursor`: the row of `page.after`, within `query`.

    `within`: instead, where rows may leave `query` between two pages. Raises InvalidRequest if there is no such row.
    """
    ascending = page.order == "asc"
    if page.after is not None:
        among = query if within is None else within
        last = await transaction.first(among.with_only_columns(*keys).where(cursor).limit(1))
        if last is None:
            raise InvalidRequest(f"There is nothing with id {page.after!r} in this list.", param="after")
        here, there = tuple_(*keys), tuple_(*last, types=[key.type for key in keys])
        query = query.where(here > there if ascending else here < there)
    ordered = query.order_by(*(key.asc() if ascending else key.desc() for key in keys))
    rows = await transaction.rows(ordered.limit(page.limit + 1))
    return Page([load(row) for row in rows[: page.limit]], len(rows) > page.limit)
