"""From a URL to a SQLAlchemy engine: SQLite through aiosqlite, PostgreSQL through asyncpg, each with its deadlines.

Nothing of what a statement carries is ever written to a log (`hide_parameters`).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Literal

import asyncpg  # type: ignore[import-untyped]  # it publishes no types
import msgspec
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from frontend.db.sqlite_driver import OneHopDriver
from frontend.settings import Settings, SettingsError

Synchronous = Literal["full", "normal"]
READ_ONLY = "hermes2_read_only"
"""The execution option of engines whose transactions are snapshots."""
SQLITE_NEEDED = (3, 35)
"""RETURNING."""
READING = ("PRAGMA query_only = on", "BEGIN")
WRITING = ("PRAGMA query_only = off", "BEGIN IMMEDIATE")
"""The lock is taken at once: a reader that becomes a writer may find that it has read what is no more."""


def database_url(settings: Settings) -> str:
    """What `open_database` takes: `sql.url`, or SQLite in home."""
    return settings.sql.url or sqlite_url(settings.home / "hermes2.db")


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for another database."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def create_engine(url: str, *, pool_size: int, timeout_s: float, synchronous: Synchronous) -> AsyncEngine:
    """Raises SettingsError for a URL that is not of SQLite or PostgreSQL."""
    if (path := sqlite_path(url)) is not None:
        return sqlite_engine(path, pool_size=pool_size, timeout_s=timeout_s, synchronous=synchronous)
    if url.startswith(("postgresql://", "postgres://")):
        return postgres_engine(url, pool_size=pool_size, timeout_s=timeout_s)
    raise SettingsError("sql.url (HERMES2_SQL_URL): a URL that begins with postgresql:// or sqlite:/// was expected")


def sqlite_engine(path: Path, *, pool_size: int, timeout_s: float, synchronous: Synchronous) -> AsyncEngine:
    if sqlite3.sqlite_version_info < SQLITE_NEEDED:
        raise SettingsError(f"sql.url (HERMES2_SQL_URL): SQLite {sqlite3.sqlite_version} is too old, 3.35 is needed")
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        module=OneHopDriver(),
        # Transactions begin where `begin` below says, not where Python's sqlite3 would.
        connect_args={"isolation_level": None, "timeout": timeout_s},
        **common(pool_size, timeout_s),
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = on")
        cursor.execute("PRAGMA secure_delete = on")  # what is deleted is overwritten
        cursor.execute(f"PRAGMA synchronous = {synchronous}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        adapted: Any = connection.connection.dbapi_connection
        adapted.begin = READING if is_read_only(connection) else WRITING

    return engine


def postgres_engine(url: str, *, pool_size: int, timeout_s: float) -> AsyncEngine:
    """asyncpg reads the URL itself, as libpq would: sslmode, host=/socket/folder, several hosts."""
    wait_ms = str(int(timeout_s * 1e3))
    limits = {
        "application_name": "hermes2",
        "jit": "off",
        "statement_timeout": wait_ms,
        "lock_timeout": wait_ms,
        "idle_in_transaction_session_timeout": wait_ms,
    }

    async def connect() -> Any:
        return await asyncpg.connect(url, timeout=timeout_s, command_timeout=timeout_s, server_settings=limits)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, **common(pool_size, timeout_s))

    @event.listens_for(engine.sync_engine, "checkout")
    def refuse_closed(connection: Any, _: ConnectionPoolEntry, __: Any) -> None:
        """Known without asking the server: after its restart the first request gets a fresh connection, no error."""
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        """As attributes of the connection, which its BEGIN is made of: no statement of their own."""
        adapted: Any = connection.connection.dbapi_connection
        adapted.readonly = is_read_only(connection)
        adapted.isolation_level = "repeatable_read" if adapted.readonly else "read_committed"

    return engine


def is_read_only(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(READ_ONLY))


def common(pool_size: int, timeout_s: float) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": timeout_s,
        "hide_parameters": True,
        "json_serializer": lambda value: msgspec.json.encode(value).decode(),
        "json_deserializer": msgspec.json.decode,
    }
