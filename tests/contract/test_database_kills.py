"""Writers that are killed at any moment: nothing that they were told is kept is lost, and every reader holds what SQL holds."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sqlite3
from contextlib import AsyncExitStack, closing
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from frontend.db.engines import sqlite_url
from tests.support import log_writer
from tests.support.database import opened
from tests.support.documents import add_files, add_store
from tests.support.projection import Projection

KILLS = int(os.environ.get("HERMES2_KILLS", "5"))
WRITERS = 2
LONGEST_S = 0.4
"""Between two kills."""


async def test_writers_are_killed(tmp_path: Path) -> None:
    """Two at a time, with SIGKILL, while two readers follow the log: at its head they hold what SQL holds, each time. At the
    end the file is whole, and every range that was acknowledged is there, or its removal is."""
    url, acknowledged = sqlite_url(tmp_path / "hermes2.db"), tmp_path / "acknowledged"
    choose = random.Random(os.urandom(8))  # noqa: S311  # no secret
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([log_writer.__name__])

    def writer() -> ForkServerProcess:
        process = context.Process(target=log_writer.main, args=(url, str(acknowledged), choose.randrange(10**6)))
        process.start()
        return process

    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(url, 30)) for _ in range(2)]
        await add_files(databases[0], *log_writer.NAMES)
        await add_store(databases[0])
        readers = [Projection(database) for database in databases]
        over = asyncio.Event()
        following = [asyncio.create_task(follow(reader, over)) for reader in readers]
        writers = [writer() for _ in range(WRITERS)]
        try:
            for _ in range(KILLS):
                await lines_beyond(acknowledged, lines(acknowledged))
                await asyncio.sleep(choose.uniform(0, LONGEST_S))
                await kill(writers.pop(0))
                writers.append(writer())
        finally:
            for process in writers:
                await kill(process)
        over.set()
        await asyncio.gather(*following)
        for reader in readers:
            await reader.to_the_head()
        assert readers[0].texts == readers[1].texts
    assert_nothing_is_lost(tmp_path / "hermes2.db", acknowledged)
    print(f"{KILLS} kills, {lines(acknowledged)} publications, {sum(each.compared for each in readers)} comparisons")


async def follow(reader: Projection, over: asyncio.Event) -> None:
    while not over.is_set():
        await reader.follow()


async def kill(process: ForkServerProcess) -> None:
    process.kill()
    await asyncio.to_thread(process.join)
    process.close()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


async def lines_beyond(path: Path, count: int) -> None:
    """Returns when somebody has published something."""
    async with asyncio.timeout(60):
        while lines(path) <= count:
            await asyncio.sleep(0.01)


def assert_nothing_is_lost(path: Path, acknowledged: Path) -> None:
    """An acknowledged range is all there, or was removed, as a removal or a floor above it says."""
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        head, floor = file.execute("SELECT head, floor FROM vector_stores").fetchone()
        present = {seq for (seq,) in file.execute("SELECT seq FROM chunks")}
        with_vectors = {seq for (seq,) in file.execute("SELECT seq FROM chunk_vectors")}
        removed = {
            seq for first, last in file.execute("SELECT first, last FROM removals") for seq in range(first, last + 1)
        }
        ranges = file.execute(
            "SELECT first_seq, last_seq FROM vector_store_files WHERE status = 'completed'"
        ).fetchall()
    assert present == with_vectors == {seq for first, last in ranges for seq in range(first, last + 1)}
    assert not present & removed
    for line in acknowledged.read_text().splitlines():
        first, last = map(int, line.split())
        whole = set(range(first, last + 1))
        assert last <= head
        assert whole <= present or (not whole & present and (whole <= removed or last < floor))
