"""One transaction: runs statements, and lets no error of a driver out.

Statements stand at the head of each repository, built when it is imported: SQLAlchemy takes 110 µs to build and look up
the SELECT of a conversation, and 20 to look up one that is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Executable, Row, Text, bindparam
from sqlalchemy.ext.asyncio import AsyncConnection

from frontend.db.errors import translated

# Parameters of statements. In an UPDATE the names of its columns stand for their new values, so these are none.
TENANT = bindparam("of_tenant", type_=Text())
ID = bindparam("of_id", type_=Text())
NOW = bindparam("now", type_=BigInteger())
MOST = bindparam("most", type_=BigInteger())


class Transaction:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, statement: Executable, **values: object) -> Sequence[Row[Any]]:
        with translated():
            return (await self._connection.execute(statement, values)).all()

    async def first(self, statement: Executable, **values: object) -> Row[Any] | None:
        with translated():
            return (await self._connection.execute(statement, values)).first()

    async def run(self, statement: Executable, **values: object) -> int:
        """How many rows it changed."""
        with translated():
            return (await self._connection.execute(statement, values)).rowcount

    async def run_many(self, statement: Executable, rows: Sequence[Mapping[str, object]]) -> None:
        """Once for each of `rows`, in one call of the driver."""
        if rows:
            with translated():
                await self._connection.execute(statement, rows)

    @property
    def is_sqlite(self) -> bool:
        return self._connection.dialect.name == "sqlite"
