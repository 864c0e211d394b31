"""A question to something that may not answer: who asks waits only so long, and the same question is asked once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from frontend.domain.errors import ServiceError

T = TypeVar("T")


class Asking(Generic[T]):
    """Who has waited long enough leaves the question to its own end: many who ask something that hangs do not pile up there,
    and a call that is cancelled while its answer leaves stays in Triton for ever (frontend/triton/engine.py)."""

    def __init__(self, ask: Callable[[], Awaitable[T]], timeout_s: float) -> None:
        """`ask` must end some time."""
        self._ask = ask
        self._timeout_s = timeout_s
        self._running: asyncio.Task[T | None] | None = None

    async def answer(self) -> T | None:
        """None: there is none in time, or it was that there can be none (a ServiceError)."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        running = self._running
        await asyncio.wait([running], timeout=self._timeout_s)
        return running.result() if running.done() else None

    async def _run(self) -> T | None:
        try:
            return await self._ask()
        except ServiceError:
            return None

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
