"""The sweeper: everything that has expired, in bounded batches, round after round, whatever goes wrong in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from frontend.domain.errors import Unavailable
from frontend.domain.storage import Database
from frontend.services.expiry import BATCHES, EVERY_S, EXPIRED_STORE_S, UPLOAD_S, Expiry

NOW = 1_800_000_000.0


class FakeDatabase:
    """Counts what is asked of it: `left` of each kind are expired."""

    def __init__(self, **left: int) -> None:
        self.left = dict.fromkeys(BATCHES, 0) | left
        self.asked: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self.writers = 0
        self.forgotten: list[tuple[str, str]] = []
        """Of the conversations that were deleted, what caches were told."""
        self.forgotten_stores: list[tuple[str, str]] = []

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Any]:
        assert self.writers == 0, "two transactions of one sweeper"
        self.writers += 1
        await asyncio.sleep(0)
        yield SimpleNamespace(
            sessions=SimpleNamespace(delete_expired=self._taker("sessions")),
            conversations=SimpleNamespace(delete_expired=self._taker("conversations")),
            responses=SimpleNamespace(delete_events=self._taker("events")),
            files=SimpleNamespace(delete_expired=self._taker("files")),
            vector_stores=SimpleNamespace(delete_expired=self._taker("vector_stores")),
            idempotency=SimpleNamespace(delete_expired=self._taker("idempotency_keys")),
        )
        self.writers -= 1

    def _taker(self, kind: str) -> Any:
        async def take(before: int, *more: int) -> Any:
            self.asked.append((kind, before, *more))
            most = more[-1]
            if self.fails is not None and kind == "sessions":
                self.writers -= 1
                raise self.fails
            taken = min(self.left[kind], most)
            self.left[kind] -= taken
            if kind in ("conversations", "vector_stores"):
                return [("a", f"{kind}_{i}") for i in range(taken)]
            return taken

        return take


def expiry(database: FakeDatabase, **more: Any) -> Expiry:
    async def forget(tenant: str, conversation_id: str) -> None:
        database.forgotten.append((tenant, conversation_id))

    async def forget_store(tenant: str, store_id: str) -> None:
        database.forgotten_stores.append((tenant, store_id))

    return Expiry(
        cast("Database", database),
        events_s=3600,
        forget=forget,
        forget_store=forget_store,
        clock=lambda: NOW,
        **more,
    )


async def test_a_round() -> None:
    """Each kind in batches of its size until one is not full; events are kept for so long after the response's end."""
    database = FakeDatabase(conversations=BATCHES["conversations"] + 1, events=3, vector_stores=2)
    with capture_logs() as logs:
        await expiry(database).sweep()
    assert database.left == dict.fromkeys(BATCHES, 0)
    assert len(database.forgotten) == BATCHES["conversations"] + 1
    assert database.asked == [
        ("sessions", NOW, BATCHES["sessions"]),
        ("conversations", NOW, BATCHES["conversations"]),
        ("conversations", NOW, BATCHES["conversations"]),
        ("events", NOW - 3600, BATCHES["events"]),
        ("files", NOW, NOW - UPLOAD_S, BATCHES["files"]),
        *[("vector_stores", NOW - EXPIRED_STORE_S, 1)] * 3,
        ("idempotency_keys", NOW, BATCHES["idempotency_keys"]),
    ]
    assert [(log["kind"], log["count"]) for log in logs] == [
        ("conversations", BATCHES["conversations"] + 1),
        ("events", 3),
        ("vector_stores", 2),
    ]
    assert len(database.forgotten_stores) == 2


@pytest.mark.parametrize("failure", [Unavailable("away"), RuntimeError("a defect")])
async def test_a_failure_ends_nothing(failure: Exception) -> None:
    """It is logged, the other kinds have their turn, and the next round tries again."""
    database = FakeDatabase(sessions=1, conversations=1)
    database.fails = failure
    with capture_logs() as logs:
        await expiry(database).sweep()
    assert [(log["event"], log["kind"]) for log in logs] == [
        ("expiry_failed", "sessions"),
        ("expired", "conversations"),
    ]
    database.fails = None
    await expiry(database).sweep()
    assert database.left["sessions"] == 0


async def test_rounds() -> None:
    """One after the other, the first at once, each some 30 s after the one before; leaving ends the pause."""
    slept: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 20:
            enough.set()
            await asyncio.Event().wait()

    database = FakeDatabase()
    async with expiry(database, sleep=sleep).running():
        await enough.wait()
    assert len(database.asked) == 20 * len(BATCHES)
    assert all(0.8 * EVERY_S <= seconds <= 1.2 * EVERY_S for seconds in slept)
    assert len(set(slept)) > 1


async def test_the_end() -> None:
    """A batch that has begun is finished, because a transaction that is cut may leave its connection open; the next one
    does not begin."""
    database = FakeDatabase(sessions=10 * BATCHES["sessions"])
    async with expiry(database).running():
        while not database.writers:
            await asyncio.sleep(0)
    assert len(database.asked) == 1
    assert database.writers == 0
