"""Deletion is real: what was deleted does not stand in the raw file any more."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.documents import NewChunk
from frontend.domain.storage import UnitOfWork
from tests.support.documents import add_files, add_store, chunk, claim, memory, publish, put_in, store_file
from tests.support.records import MOST, conversation

SECRET = "QUITE-A-SECRET"
NUMBER = 0.7568  # as float16 it is two bytes: of many in a row no other data is made
VECTORS = np.full((2, 4), NUMBER, np.float16)
OPEN = "NO-SECRET-AT-ALL"


def secrets(count: int) -> list[NewChunk]:
    """From a few bytes to several pages long, so that they lie in all places that a row can lie in."""
    lengths = [random.Random(n).choice([20, 300, 5_000, 30_000]) for n in range(count)]  # noqa: S311  # no secret, really
    texts = [(f"{SECRET} {n} " * length)[:length] for n, length in enumerate(lengths)]
    return [NewChunk(text=text, start=0, end=len(text), vectors=VECTORS) for text in texts]


async def fill(database: SqlDatabase) -> None:
    """file_1 in vs_1 and in vs_2, and the memory of conv_1, are secret; file_2 in vs_1, in between, is not."""
    await add_files(database, "file_1", body=f"{SECRET} {'x' * 10_000}".encode() * 3)
    await add_files(database, "file_2")
    for store_id in ("vs_1", "vs_2"):
        await add_store(database, store_id)
        await put_in(database, "file_1", store_id=store_id, attributes={"about": SECRET})
        (job,) = await claim(database)
        assert await publish(database, job, secrets(40))
    await put_in(database, "file_2")
    (job,) = await claim(database)
    assert await publish(database, job, [chunk(OPEN)] * 40)
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation(), MOST)
        await uow.vector_stores.add("a", memory(), MOST)
        await uow.chunks.append("a", "vs_memory", secrets(40))


def raw(path: Path) -> bytes:
    """All files of the database, once its log is in the main one."""
    with closing(sqlite3.connect(path)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
    return b"".join(each.read_bytes() for each in sorted(path.parent.glob(f"{path.name}*")))


Step = Callable[[UnitOfWork], Awaitable[object]]
WAYS: dict[str, list[Step]] = {
    "file": [lambda u: u.files.delete("a", "file_1"), lambda u: u.conversations.delete("a", "conv_1")],
    "store file": [
        lambda u: u.store_files.remove("a", "vs_1", "file_1"),
        lambda u: u.store_files.remove("a", "vs_2", "file_1"),
        lambda u: u.vector_stores.delete_memory("a", "conv_1"),
        lambda u: u.files.delete("a", "file_1"),
    ],
    "put in anew": [
        lambda u: u.store_files.add("a", "vs_1", [store_file()], most=MOST, most_waiting=MOST),
        lambda u: u.store_files.add("a", "vs_2", [store_file("file_1", "vs_2")], most=MOST, most_waiting=MOST),
        lambda u: u.files.delete("a", "file_1"),
        lambda u: u.conversations.delete("a", "conv_1"),
    ],
    "store": [
        lambda u: u.vector_stores.delete("a", "vs_2"),
        lambda u: u.store_files.remove("a", "vs_1", "file_1"),
        lambda u: u.files.delete("a", "file_1"),
        lambda u: u.conversations.delete("a", "conv_1"),
    ],
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_was_deleted_is_not_in_the_file(sqlite_database: SqlDatabase, tmp_path: Path, way: str) -> None:
    """Texts, vectors, attributes and the pieces of the file; what was not deleted is."""
    await fill(sqlite_database)
    before = raw(tmp_path / "hermes2.db")
    assert SECRET.encode() in before
    assert VECTORS.tobytes() in before
    for step in WAYS[way]:
        async with sqlite_database.writing() as uow:
            await step(uow)
    after = raw(tmp_path / "hermes2.db")
    assert SECRET.encode() not in after
    assert VECTORS.tobytes() not in after
    assert OPEN.encode() in after
