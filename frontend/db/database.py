"""The database port over SQLAlchemy: snapshots to read, transactions to write, each with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from frontend.db.engines import READ_ONLY, Synchronous, create_engine
from frontend.db.errors import DatabaseUnavailable, translated
from frontend.db.migrate import migrate
from frontend.db.sqlite_driver import OneHopDriver
from frontend.db.transaction import Transaction
from frontend.db.unit_of_work import SqlUnitOfWork
from frontend.domain.errors import Unavailable
from frontend.domain.storage import UnitOfWork

LONGEST = 2
"""A transaction ends after so many times `timeout_s`, waits and work together, whatever it is doing."""


class SqlDatabase:
    def __init__(self, engine: AsyncEngine, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._writer = engine
        self._reader = engine.execution_options(**{READ_ONLY: True})
        # SQLite has one writer. Those of a process queue here, in order, instead of sleeping in its busy handler.
        self._writers = asyncio.Lock() if engine.dialect.name == "sqlite" else None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[UnitOfWork]:
        async with self._open(self._reader, None) as (transaction, _):
            yield SqlUnitOfWork(transaction)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[UnitOfWork]:
        async with self._open(self._writer, self._writers) as (transaction, connection):
            yield SqlUnitOfWork(transaction)
            with translated():
                await connection.commit()

    async def check(self) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s), self._open(self._reader, None) as (transaction, _):
                return await transaction.first(select(literal(1))) is not None
        except (Unavailable, TimeoutError):
            return False

    @asynccontextmanager
    async def _open(
        self, engine: AsyncEngine, queue: asyncio.Lock | None
    ) -> AsyncIterator[tuple[Transaction, AsyncConnection]]:
        """What is not committed when it ends is rolled back. Raises Unavailable."""
        try:
            async with asyncio.timeout(self._timeout_s * LONGEST) as limit, AsyncExitStack() as stack:
                if queue is not None:
                    await stack.enter_async_context(queue)
                with translated():
                    connection = await engine.connect()
                stack.push_async_callback(close, connection)
                yield Transaction(connection), connection
        except TimeoutError:
            if limit.expired():
                raise DatabaseUnavailable from None
            raise


async def close(connection: AsyncConnection) -> None:
    """To the end, even if whoever waits for it is cancelled: a transaction left open would keep every writer out."""
    with translated():
        await asyncio.shield(connection.close())


@asynccontextmanager
async def open_database(
    url: str, *, pool_size: int, timeout_s: float, synchronous: Synchronous = "full"
) -> AsyncIterator[SqlDatabase]:
    """`url`: sqlite:///path or postgresql://…; brought to this version's tables first.

    Raises SettingsError for a wrong URL or a database of a newer version, Unavailable if it does not answer.
    """
    engine = create_engine(url, pool_size=pool_size, timeout_s=timeout_s, synchronous=synchronous)
    await asyncio.to_thread(migrate, url)
    try:
        yield SqlDatabase(engine, timeout_s)
    finally:
        await engine.dispose()
        if isinstance(driver := engine.dialect.dbapi, OneHopDriver):
            await driver.wait_closed(timeout_s)
