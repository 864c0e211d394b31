"""A process that puts files into vs_1 of a SQLite file, publishes and removes them, until it is killed.

What it has been told is kept, it writes down: one line for each publication, first and last number.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

from frontend.domain.errors import NotFound
from frontend.domain.storage import Database
from tests.support.database import opened
from tests.support.documents import chunks, store_file
from tests.support.records import MOST

NAMES = [f"f{n}" for n in range(8)]


def main(url: str, acknowledged: str, seed: int) -> None:
    asyncio.run(write(url, Path(acknowledged), seed))


async def write(url: str, acknowledged: Path, seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311  # no secret
    async with opened(url, 30) as database:
        step = 0
        while True:
            step += 1
            try:
                await once(database, acknowledged, choose, f"{seed} {step}")
            except NotFound:
                continue


async def once(database: Database, acknowledged: Path, choose: random.Random, text: str) -> None:
    name = choose.choice(NAMES)
    if choose.random() < 0.3:
        async with database.writing() as uow:
            await uow.store_files.remove("a", "vs_1", name)
        return
    if choose.random() < 0.2:
        async with database.writing() as uow:
            await uow.chunks.vacuum("a", "vs_1", 3)
    async with database.writing() as uow:
        await uow.store_files.add("a", "vs_1", [store_file(name)], most=MOST, most_waiting=MOST)
    async with database.writing() as uow:
        jobs = await uow.store_files.claim(f"process {os.getpid()}", time.time(), time.time() + 0.5, 2)
    for job in jobs:
        texts = [f"{text} {part}" for part in range(choose.randint(1, 12))]
        async with database.writing() as uow:
            published = await uow.store_files.publish(job, chunks(*texts), 1)
            head = (await uow.vector_stores.get("a", "vs_1")).head
        if published:
            note(acknowledged, f"{head - len(texts) + 1} {head}\n")


def note(path: Path, line: str) -> None:
    """With one write, which a kill does not tear."""
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())
