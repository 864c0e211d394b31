"""Databases that are locked, stopped, paused, or of another version: what the callers see, and how it heals."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import sys
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it publishes no types
import psutil
import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from frontend import settings
from frontend.db.database import SqlDatabase
from frontend.db.engines import sqlite_url
from frontend.db.models import Base
from frontend.domain.errors import Internal, InvalidRequest, Unavailable
from frontend.settings import SettingsError
from tests.support.database import PostgresServer, contents, empty, execute, opened
from tests.support.records import MOST, NOW, api_key, conversation, messages, sequence, turn, with_items

SHORT_S = 0.5


async def append(database: SqlDatabase, item_id: str = "i1") -> None:
    async with database.writing() as uow:
        await uow.conversations.append("a", "conv_1", messages(item_id), now=NOW, most=MOST)


# SQLite


async def test_closing_waits_for_what_was_cut_off(tmp_path: Path) -> None:
    """The thread of a connection whose statement was cancelled ends before the event loop may."""
    path, before = tmp_path / "hermes2.db", set(threading.enumerate())
    async with opened(sqlite_url(path)) as database:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(append(database))
            await asyncio.sleep(0.05)
            writing.cancel()
            await asyncio.wait([writing])
            other.execute("ROLLBACK")
    left = set(threading.enumerate()) - before
    assert [thread.name for thread in left if "_connection_worker_thread" in thread.name] == []


async def test_a_file_that_another_process_writes_to_is_unavailable(tmp_path: Path) -> None:
    """After its timeout, and only to writers; then it works again."""
    path = tmp_path / "hermes2.db"
    async with opened(sqlite_url(path), SHORT_S) as database:
        await with_items(database)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await append(database)
            assert SHORT_S / 2 < time.monotonic() - started < 5
            assert caught.value.retry_after_s == 1.0
            assert await sequence(database) == []
            assert await database.check()
            other.execute("ROLLBACK")
        await append(database)
        assert await sequence(database) == [(1, "i1")]


async def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    """In a folder that is made if need be, with what lies beside it."""
    path = tmp_path / "deep folder %20/?x#y" / "hermes2.db"
    async with opened(sqlite_url(path)) as database:
        await with_items(database, "i1")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes.pop("hermes2.db") == 0o600
    assert set(modes.values()) == {0o600}
    assert set(modes) >= {"hermes2.db-wal", "hermes2.db.lock"}


# PostgreSQL


@pytest.fixture
async def postgres_url(postgres: PostgresServer) -> str:
    await empty(postgres.get_uri())
    return postgres.get_uri()


async def test_a_row_that_is_held_for_too_long_is_unavailable(postgres_url: str) -> None:
    """After the timeout; others of the same tenant go on meanwhile."""
    async with opened(postgres_url, SHORT_S) as database:
        await with_items(database)
        other = await asyncpg.connect(postgres_url)
        try:
            async with other.transaction():
                await other.execute("SELECT 1 FROM conversations FOR UPDATE")
                with pytest.raises(Unavailable):
                    await append(database)
                async with database.writing() as uow:
                    await uow.conversations.add("a", conversation("conv_2"), MOST)
        finally:
            await other.close()
        await append(database)


async def test_a_server_that_stops_is_unavailable_until_it_is_back(postgres: PostgresServer, postgres_url: str) -> None:
    """At once, and the first request after its return works."""
    async with opened(postgres_url, 2) as database:
        await with_items(database)
        postgres.stop()
        try:
            started = time.monotonic()
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await append(database)
                with pytest.raises(Unavailable):
                    await sequence(database)
            assert not await database.check()
            with pytest.raises(Unavailable):
                async with opened(postgres_url, 2):
                    pass
            assert time.monotonic() - started < 5
        finally:
            postgres.start()
        await append(database)
        assert await sequence(database) == [(1, "i1")]


async def test_a_server_that_stops_in_a_transaction_keeps_nothing_of_it(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """Who has begun is told, and finds the database as it was before."""
    async with opened(postgres_url, 2) as database:
        await with_items(database)

        async def interrupted() -> None:
            async with database.writing() as uow:
                await uow.turns.begin(turn(), NOW)
                postgres.stop()
                postgres.start()
                await uow.turns.begin(turn("t2", None), NOW)

        with pytest.raises(Unavailable):
            await interrupted()
        async with database.reading() as uow:
            assert await uow.turns.running() == []


@contextmanager
def paused(server: PostgresServer) -> Iterator[None]:
    """It takes connections, as the kernel does for it, and answers nothing."""
    pid = server.get_pid()
    assert pid is not None
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


async def test_a_server_that_is_paused_does_not_hold_anyone(postgres: PostgresServer, postgres_url: str) -> None:
    """A call ends within twice its timeout, with connections that were open and with new ones."""
    async with opened(postgres_url, SHORT_S) as database:
        await with_items(database)
        with paused(postgres):
            started = time.monotonic()
            results = await asyncio.gather(
                *(append(database) for _ in range(6)), database.check(), return_exceptions=True
            )
            assert time.monotonic() - started < 5
            assert not results.pop()
            assert {type(each).__mro__[1] for each in results} == {Unavailable}
        await asyncio.sleep(SHORT_S)
        await append(database)


# Both


async def test_what_cannot_be_stored_is_an_invalid_request_or_is_stored(database: SqlDatabase) -> None:
    """A NUL, which PostgreSQL has in no text; a number beyond 64 bits. Never a failure to try again, nor a foreign one."""
    await with_items(database)
    for metadata in ({"k": "\x00"}, {"\x00": "v"}):
        try:
            async with database.writing() as uow:
                await uow.conversations.update("a", conversation(metadata=metadata))
        except InvalidRequest:
            continue
        async with database.reading() as uow:
            assert (await uow.conversations.get("a", "conv_1")).metadata == metadata
    with pytest.raises(InvalidRequest):
        async with database.reading() as uow:
            await uow.items.behind("a", "conv_1", 2**70)


async def test_a_defect_is_told_without_what_it_was_about(
    database: SqlDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two keys of one id: an Internal, whose message, chain and log hold nothing of the row."""
    secret = "b45bf0-very-secret"
    async with database.writing() as uow:
        await uow.keys.ensure_tenant("a", NOW)
        await uow.keys.add("a", api_key(name=secret))
    with structlog.testing.capture_logs() as logs, pytest.raises(Internal) as caught:
        async with database.writing() as uow:
            await uow.keys.add("a", api_key(name=secret))
    assert [entry["event"] for entry in logs] == ["database_defect"]
    assert caught.value.__suppress_context__
    assert secret not in repr(logs) + str(caught.value) + "".join(capsys.readouterr())


async def test_a_unit_of_work_that_does_not_end_is_ended(database_url: str) -> None:
    """Whatever it waits for: nothing of it is kept, and the others go on."""

    async def hang(database: SqlDatabase) -> None:
        async with database.writing() as uow:
            await uow.conversations.append("a", "conv_1", messages("i1"), now=NOW, most=MOST)
            await asyncio.Event().wait()

    async with opened(database_url) as patient, opened(database_url, SHORT_S) as database:
        await with_items(patient)
        with pytest.raises(Unavailable):
            await hang(database)
        assert await sequence(patient) == []
        await append(patient)


async def test_a_reading_unit_cannot_write(database: SqlDatabase) -> None:
    """It would be lost: a defect of ours, and not hidden."""
    await with_items(database)
    with pytest.raises(Internal):
        async with database.reading() as uow:
            await uow.turns.begin(turn(), NOW)
    await append(database)


async def test_a_newer_database_is_refused(database_url: str) -> None:
    """With a message that names the setting and the revision."""
    async with opened(database_url) as database:
        assert await database.check()
    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    try:
        with pytest.raises(SettingsError, match=r"HERMES2_SQL_URL.*newer version.*9999"):
            async with opened(database_url):
                pass
    finally:
        await execute(database_url, "UPDATE alembic_version SET version_num = '0004'")


async def test_the_migrations_make_what_the_models_say(database: SqlDatabase) -> None:
    """Tables, columns, types, indexes, keys: nothing is in the one and not in the other."""

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    async with database._writer.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize(
    "url",
    [
        *("mysql://x/y", "hermes2.db", "postgresql+psycopg://x/y", "postgresql://[x/y", "postgresql://x:y/z"),
        *("sqlite:////dev/null/hermes2.db", "sqlite:////proc/hermes2.db"),
    ],
)
async def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    """With the setting's name: another kind of database, a wrong form, a folder or a file that is of no use."""
    with pytest.raises(SettingsError, match="HERMES2_SQL_URL"):
        async with opened(url):
            pass


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """And left as it was."""
    path = tmp_path / "notes.txt"
    path.write_text("nothing but notes, " * 100)
    with pytest.raises(SettingsError, match=r"HERMES2_SQL_URL.*notes.txt cannot be used"):
        async with opened(sqlite_url(path)):
            pass
    assert path.read_text().startswith("nothing but notes")


def test_a_url_does_not_show_its_password() -> None:
    """However short it is, and wherever the password stands."""
    for url in (
        "postgresql://u:hid@h/x",
        "postgresql://u:a:hid@b@h/x",
        "postgresql:///x?user=u&password=hid&sslmode=a",
    ):
        loaded = settings.load({"HERMES2_SQL_URL": url})
        assert loaded.sql.url == url
        assert "hid" not in repr(loaded)


async def test_a_database_that_is_not_there_is_refused(postgres: PostgresServer) -> None:
    """It is not made: that is its owner's decision. Any spelling of the scheme will do."""
    with pytest.raises(SettingsError, match=r'HERMES2_SQL_URL.*"nobody" does not exist'):
        async with opened(postgres.get_uri(database="nobody")):
            pass
    async with opened(postgres.get_uri().replace("postgresql://", "postgres://")) as database:
        assert await database.check()


OPEN = """
import asyncio, sys
from tests.support.database import opened

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with opened(sys.argv[1]) as database:
        assert await database.check()

asyncio.run(main())
"""


@asynccontextmanager
async def fresh(kind: str, tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[str]:
    """The URL of a database that nobody has opened."""
    if kind == "sqlite":
        yield sqlite_url(tmp_path / "fresh.db")
        return
    await execute(postgres.get_uri(), "CREATE DATABASE fresh")
    yield postgres.get_uri(database="fresh")
    await execute(postgres.get_uri(), "DROP DATABASE fresh")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_four_processes_may_start_at_once(kind: str, tmp_path: Path, postgres: PostgresServer) -> None:
    """On a database that is not there yet: one makes it, all of them work."""
    async with fresh(kind, tmp_path, postgres) as url:
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, url, stdin=PIPE, stdout=PIPE)
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        assert [process.returncode for process in processes] == [0, 0, 0, 0]
        assert set().union(*(await contents(url)).values()) == set()
