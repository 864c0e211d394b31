"""Brings a database to the tables of this version, once, however many processes start at the same time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # it publishes no types
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from frontend.db.engines import sqlite_path
from frontend.db.errors import DatabaseUnavailable, translated
from frontend.settings import SettingsError

SCRIPTS = Path(__file__).parent / "migrations"
TIMEOUT_S = 60.0
"""Longest wait for another process that migrates, and for a migration."""
CONNECT_TIMEOUT_S = 10.0
ADVISORY_LOCK = 0x6865726D657332
"""The key of PostgreSQL's lock: "hermes2"."""
one_at_a_time = threading.Lock()
"""Alembic knows one migration per process: its `op` and `context` are global."""


def migrate(url: str) -> None:
    """Blocks; call it in a thread. Raises SettingsError, Unavailable."""
    with one_at_a_time, translated():
        if (path := sqlite_path(url)) is not None:
            migrate_sqlite(path)
        else:
            asyncio.run(migrate_postgres(url))


def migrate_sqlite(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as exc:
        raise SettingsError(f"sql.url (HERMES2_SQL_URL): {path} cannot be used: {exc.strerror}") from exc
    with file_lock(path.with_name(path.name + ".lock")):
        use_wal(path)
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"isolation_level": None, "timeout": TIMEOUT_S},
        )
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with engine.begin() as connection:
            upgrade(connection)


def use_wal(path: Path) -> None:
    """Readers and a writer do not wait for each other. The file remembers it."""
    try:
        with closing(sqlite3.connect(path, timeout=TIMEOUT_S)) as raw:
            raw.execute("PRAGMA journal_mode = wal")
    except sqlite3.Error as exc:
        raise SettingsError(f"sql.url (HERMES2_SQL_URL): {path} cannot be used: {exc}") from exc


async def migrate_postgres(url: str) -> None:
    async def connect() -> asyncpg.Connection:
        try:
            return await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, command_timeout=TIMEOUT_S)
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as exc:
            raise SettingsError(f"sql.url (HERMES2_SQL_URL): {exc}") from exc
        except ValueError:  # asyncpg's own errors for it, and those of its parser
            raise SettingsError("sql.url (HERMES2_SQL_URL): the URL cannot be read") from None

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=connect, poolclass=NullPool, hide_parameters=True
    )
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=ADVISORY_LOCK))
        await connection.run_sync(upgrade)


def upgrade(connection: Connection) -> None:
    """In the caller's transaction: all of it or nothing. Raises SettingsError."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    for revision in MigrationContext.configure(connection).get_current_heads():
        if revision not in known:
            raise SettingsError(
                f"sql.url (HERMES2_SQL_URL): the database is of a newer version (revision {revision});"
                " start that version, or restore a backup of this one"
            )
    command.upgrade(config, "head")


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Between processes. Raises Unavailable if another one holds it for too long."""
    deadline = time.monotonic() + TIMEOUT_S
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable from None
                time.sleep(0.02)
        yield
