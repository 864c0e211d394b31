"""A deadline for every command, and a rest after one that failed: Valkey costs at most one deadline a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prometheus_client import Counter
from valkey.exceptions import ValkeyError

T = TypeVar("T")
REST_S = 1.0
FAILURES = Counter("hermes2_valkey_failures", "Commands that failed or took too long; none is tried for a second then.")


class Breaker:
    """Fails open: who asks gets `otherwise`, and never an error."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._rests_until = float("-inf")
        self._failed = False

    async def run(self, command: Callable[[], Awaitable[T]], otherwise: T) -> T:
        if not self._may_try():
            return otherwise
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await command()
        except (ValkeyError, OSError, TimeoutError):
            FAILURES.inc()
            self._failed = True
            self._rests_until = self._clock() + REST_S
            return otherwise
        self._failed = False
        return result

    def _may_try(self) -> bool:
        """After a rest one command goes ahead, and the others wait for what becomes of it."""
        if self._failed:
            now = self._clock()
            if now < self._rests_until:
                return False
            self._rests_until = now + REST_S
        return True
