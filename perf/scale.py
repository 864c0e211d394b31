"""What a request costs in SQL and CPU as the conversations of one tenant grow, up to 100,000 with 10 million items.

Through the functions that the service itself uses (perf/scale_work.py), one after the other, without the model and without
Valkey: windows are read from SQL each time. The tables are filled past the service (perf/scale_seed.py).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from sqlalchemy import event
from sqlalchemy.engine import Engine

from frontend.db.database import SqlDatabase, open_database
from frontend.db.engines import sqlite_path, sqlite_url
from perf import machine, plot
from perf.overload_load import percentile
from perf.scale_seed import ITEMS_OF_A_TURN, Seeder, Templates
from perf.scale_work import PAGE, SEEN_ITEMS, Operation, Seeded, Work

FIRST, TIMES = 10_000, 10
"""Items of the first level, and how many times as many each other has."""
TURNS, SHORT_TURNS, LONG_TURNS = 50, 5, 5000
"""Of most conversations, of those whose turns are measured, and of the long one."""
FLAT = 1.5
"""The last level's median is at most so many times the first's."""
LONGEST_S, FEWEST = 20.0, 20
"""For one operation at one level: what takes long is not done as often."""
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    levels: Sequence[int]
    """Items, in ascending order."""
    operations: int
    """Of each kind, at each level."""
    long_turns: int = LONG_TURNS


class Cost(msgspec.Struct, frozen=True):
    """Of one kind of operation."""

    statements: int
    wall_ms: Sequence[float]
    cpu_ms: Sequence[float]
    """Of this process: SQLite is in it, PostgreSQL is not."""


class Level(msgspec.Struct, frozen=True):
    items: int
    """Without those of the long conversation, and of the short ones."""
    all_items: int
    conversations: int
    """All."""
    seconds: float
    """That it took to put them there."""
    size_bytes: int | None
    """Of a SQLite's file."""
    costs: Mapping[str, Cost]


def levels(most: int) -> list[int]:
    found = [FIRST]
    while found[-1] * TIMES <= most:
        found.append(found[-1] * TIMES)
    return found


async def measure(plan: Plan, postgres: str | None, say: Say) -> list[Level]:
    """`postgres`: the URL of an empty database; None: a SQLite in a folder that is gone afterwards."""
    if postgres is not None:
        return await of_database(plan, postgres, say)
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        return await of_database(plan, sqlite_url(Path(folder) / "scale.db"), say)


async def of_database(plan: Plan, url: str, say: Say) -> list[Level]:
    async with opened(url) as database:
        await Work(database).first_turn()
    seeder = Seeder(await Templates.read(url))
    (long,) = await seeder.grow(url, 1, plan.long_turns, SEEN_ITEMS)
    many: list[str] = []
    found: list[Level] = []
    for items in plan.levels:
        began = time.perf_counter()
        many += await seeder.grow(url, items // (ITEMS_OF_A_TURN * TURNS) - len(many), TURNS)
        short = await seeder.grow(url, plan.operations, SHORT_TURNS)
        seconds = time.perf_counter() - began
        say(f"{items:,} items are there after {seconds:.0f} s")
        path = sqlite_path(url)
        size_bytes = None if path is None else path.stat().st_size
        gc.collect()
        async with opened(url) as database:
            operations = await Work(database).operations(Seeded(many, short, long, seeder.responses))
            costs = {name: await cost(operation, plan.operations) for name, operation in operations.items()}
        found.append(Level(items, seeder.items, seeder.conversations, seconds, size_bytes, costs))
        say("; ".join(f"{name}: {median(each.wall_ms):.2f} ms" for name, each in costs.items()))
    return found


def opened(url: str) -> AbstractAsyncContextManager[SqlDatabase]:
    """As the service opens it by default."""
    return open_database(url, pool_size=8, timeout_s=5, synchronous="full")


async def cost(operation: Operation, times: int) -> Cost:
    await operation()  # its statements are compiled now
    with counted() as statements:
        await operation()
    wall_ms: list[float] = []
    cpu_ms: list[float] = []
    until = time.perf_counter() + LONGEST_S
    while len(wall_ms) < times and (len(wall_ms) < FEWEST or time.perf_counter() < until):
        began, cpu_began = time.perf_counter(), time.process_time()
        await operation()
        cpu_ms.append(1e3 * (time.process_time() - cpu_began))
        wall_ms.append(1e3 * (time.perf_counter() - began))
    return Cost(len(statements), wall_ms, cpu_ms)


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


def ratio(first: Sequence[float], last: Sequence[float]) -> float:
    """Of the medians."""
    return median(last) / median(first)


def pictures(found: Sequence[Level]) -> list[plot.Panel]:
    lines = {
        name: [plot.point(math.log10(level.items), median(level.costs[name].wall_ms)) for level in found]
        for name in found[0].costs
    }
    half = len(lines) // 2
    return [
        plot.Lines(title=title, x="items, as a power of ten", y="ms", lines=dict(some), logarithmic=True)
        for title, some in (
            ("Medians: turns, conversations", list(lines.items())[:half]),
            ("Medians: metadata, items, responses", list(lines.items())[half:]),
        )
    ]


def report(found: Sequence[Level], plan: Plan, database: str) -> str:
    """As Markdown. `database`: its name."""
    how = (
        f"`python -m perf scale --most {plan.levels[-1]} --operations {plan.operations}` on {machine.describe()}, {database}."
        f" One tenant; most of its conversations have {ITEMS_OF_A_TURN * TURNS} items, the long one"
        f" {ITEMS_OF_A_TURN * plan.long_turns:,} and more, of which a prompt sees {SEEN_ITEMS}; those that a short turn is taken"
        f" in have {ITEMS_OF_A_TURN * SHORT_TURNS}. Pages have {PAGE} entries, the newest first. Without the model and Valkey,"
        " through the service's own functions, one after the other. A turn: the window is read, the turn begins (one"
        " transaction), the turn is stored (another one)."
    )
    heads = [f"{level.items:,} items" for level in found]
    size_head = [
        "items",
        "with the long and the short",
        "conversations",
        "database, GB",
        "put there in, s",
        "fewest calls",
    ]
    return "\n".join(
        [
            *(
                "# What a request costs as a tenant's conversations grow",
                "",
                how,
                "",
                "Milliseconds, median / p95:",
                "",
            ),
            *table(["", "statements", *heads, "last / first", ""], [wall_row(name, found) for name in found[0].costs]),
            *("", f"Flat: at most {FLAT} times.", "", "CPU of this process, milliseconds, median:", ""),
            *table(["", *heads, "last / first"], [cpu_row(name, found) for name in found[0].costs]),
            *("", f"Each is called {plan.operations} times, or for {LONGEST_S:.0f} s if that is less:", ""),
            *(*table(size_head, [size_row(level) for level in found]), ""),
        ]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def wall_row(name: str, found: Sequence[Level]) -> list[str]:
    costs = [level.costs[name] for level in found]
    statements = sorted({each.statements for each in costs})
    times = [f"{median(each.wall_ms):.2f} / {percentile(each.wall_ms, 0.95):.2f}" for each in costs]
    grown = ratio(costs[0].wall_ms, costs[-1].wall_ms)
    return [
        *(name, " to ".join(map(str, statements)), *times),
        *(f"{grown:.2f}", "flat" if grown <= FLAT else "not flat"),
    ]


def cpu_row(name: str, found: Sequence[Level]) -> list[str]:
    cpu_ms = [level.costs[name].cpu_ms for level in found]
    return [name, *(f"{median(each):.2f}" for each in cpu_ms), f"{ratio(cpu_ms[0], cpu_ms[-1]):.2f}"]


def size_row(level: Level) -> list[str]:
    fewest = min(len(each.wall_ms) for each in level.costs.values())
    return [
        *(f"{level.items:,}", f"{level.all_items:,}", f"{level.conversations:,}"),
        "-" if level.size_bytes is None else f"{level.size_bytes / 1e9:.2f}",
        *(f"{level.seconds:.0f}", str(fewest)),
    ]
