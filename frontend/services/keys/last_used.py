"""When each key was used last, written down now and then: never while a request waits for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from frontend.domain.errors import ServiceError
from frontend.domain.storage import Database

log = structlog.get_logger("hermes2.keys")
EVERY_S = 30.0
JITTER = 0.2
"""It comes up to this share earlier or later, so that several processes do not write in step."""
MOST = 10_000
"""Keys that are remembered while the database is away; the use of others is not written down then."""


class LastUsed:
    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sleep = sleep
        self._used: dict[str, int] = {}

    def note(self, key_id: str) -> None:
        """It is used now."""
        self._put(key_id, int(self._clock()))

    def _put(self, key_id: str, at: int) -> None:
        if key_id in self._used or len(self._used) < MOST:
            self._used[key_id] = max(at, self._used.get(key_id, 0))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes now and then, and once more at the end."""
        writer = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            await self.write()

    async def _keep(self) -> None:
        while True:
            await self._sleep(EVERY_S * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  # no secret
            await self.write()

    async def write(self) -> None:
        """With one statement, or none if nothing was used. What fails is kept for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._database.writing() as uow:
                await uow.keys.touch(used)
        except BaseException as exc:
            for key_id, at in used.items():
                self._put(key_id, at)
            if not isinstance(exc, Exception):  # it is cancelled
                raise
            known = isinstance(exc, ServiceError)
            log.warning("last_used_not_written", keys=len(used), exc_info=None if known else exc)
