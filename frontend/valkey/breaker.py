"""A deadline for every command, and a rest after one that failed: Valkey costs at most one deadline a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge
from valkey.exceptions import ValkeyError

T = TypeVar("T")
REST_S = 1.0
SECOND_LOOKS = 8
"""Turns of the loop from bytes at a socket to the end of a command, and some."""
FAILURES = Counter("hermes2_valkey_failures", "Commands that failed or took too long; none is tried for a second then.")
OPEN = Gauge(
    "hermes2_valkey_breaker_open",
    "Whether the last command failed: none is tried for a second then.",
    multiprocess_mode="livemax",
)


class Breaker:
    """Fails open: who asks gets `otherwise`, and never an error."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._rests_until = float("-inf")
        self.failed = False
        """The last command did."""

    async def run(self, command: Callable[[], Coroutine[Any, Any, T]], otherwise: T) -> T:
        if not self._may_try():
            return otherwise
        try:
            result = await in_time(command(), self._timeout_s)
        except (ValkeyError, OSError, TimeoutError):
            FAILURES.inc()
            self.failed = True
            OPEN.set(1)
            self._rests_until = self._clock() + REST_S
            return otherwise
        if self.failed:
            OPEN.set(0)
        self.failed = False
        return result

    def _may_try(self) -> bool:
        """After a rest one command goes ahead, and the others wait for what becomes of it."""
        if self.failed:
            now = self._clock()
            if now < self._rests_until:
                return False
            self._rests_until = now + REST_S
        return True


async def in_time(command: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Raises TimeoutError, and what the command raises.

    A loop that was busy itself when the time ran out, or a process that had no core, first reads what has come meanwhile:
    with asyncio.timeout Valkey would be given up for it.
    """
    task = asyncio.ensure_future(command)
    try:
        await asyncio.wait([task], timeout=timeout_s)
        for _ in range(SECOND_LOOKS):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()
