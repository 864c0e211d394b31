"""The end of what has expired: conversations, sessions, the events of old responses, files, vector stores, replies by
Idempotency-Key. Nobody can use them any more; this takes them out of the database."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import structlog

from frontend.domain.errors import ServiceError
from frontend.domain.storage import Database
from frontend.services.conversations import Forget

log = structlog.get_logger("hermes2.expiry")
EVERY_S = 30.0
JITTER = 0.2
"""A round comes up to this share earlier or later, so that several processes do not sweep in step."""
Kind = Literal["sessions", "conversations", "events", "files", "vector_stores", "idempotency_keys"]
BATCHES: dict[Kind, int] = {
    "sessions": 500,
    "conversations": 10,
    "events": 50,
    "files": 5,
    "vector_stores": 1,
    "idempotency_keys": 100,
}
"""Most of them in one transaction, which others wait for: a conversation may have 20,000 items, a file 512 pieces."""
UPLOAD_S = 6 * 3600
"""An upload that was begun so long ago, and is not over, is given up: its process has died."""
EXPIRED_STORE_S = 24 * 3600
"""A vector store that has expired can be looked at for so long, and says that it has; it cannot be searched."""


class Expiry:
    def __init__(
        self,
        database: Database,
        *,
        events_s: int,
        forget: Forget,
        forget_store: Forget | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`events_s`: how long the events of a finished response are kept, seconds. `forget_store`: told of vector stores,
        as `forget` is of conversations."""
        self._database = database
        self._events_s = events_s
        self._forget = forget
        self._forget_store = forget_store
        self._clock = clock
        self._sleep = sleep
        self._batch = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweeps now and then, one round after the other. At the end a batch that has begun is finished, and no other."""
        sweeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            async with self._batch:  # it is cancelled between two batches, and not in the middle of a transaction
                sweeper.cancel()
            await asyncio.wait([sweeper])

    async def _keep(self) -> None:
        while True:
            await self.sweep()
            await self._sleep(EVERY_S * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  # no secret

    async def sweep(self) -> None:
        """One round over everything. What fails is logged, and tried again in the next round."""
        for kind, most in BATCHES.items():
            try:
                total = await self._sweep(kind, most)
            except ServiceError as exc:
                log.warning("expiry_failed", kind=kind, error=exc.code)
            except Exception as exc:  # a defect must not end the rounds
                log.error("expiry_failed", kind=kind, exc_info=exc)
            else:
                if total:
                    log.info("expired", kind=kind, count=total)

    async def _sweep(self, kind: Kind, most: int) -> int:
        total, found = 0, most
        while found == most:
            found = await self._delete(kind, most)
            total += found
        return total

    async def _delete(self, kind: Kind, most: int) -> int:
        now = int(self._clock())
        async with self._batch:
            if kind == "conversations":
                return await self._delete_conversations(now, most)
            if kind == "vector_stores":
                return await self._delete_stores(now, most)
            async with self._database.writing() as uow:
                if kind == "sessions":
                    return await uow.sessions.delete_expired(now, most)
                if kind == "idempotency_keys":
                    return await uow.idempotency.delete_expired(now, most)
                if kind == "files":
                    return await uow.files.delete_expired(now, now - UPLOAD_S, most)
                return await uow.responses.delete_events(now - self._events_s, most)

    async def _delete_conversations(self, now: int, most: int) -> int:
        async with self._database.writing() as uow:
            gone = await uow.conversations.delete_expired(now, most)
        for tenant, conversation_id in gone:
            await self._forget(tenant, conversation_id)
        return len(gone)

    async def _delete_stores(self, now: int, most: int) -> int:
        async with self._database.writing() as uow:
            gone = await uow.vector_stores.delete_expired(now - EXPIRED_STORE_S, most)
        if self._forget_store is not None:
            for tenant, store_id in gone:
                await self._forget_store(tenant, store_id)
        return len(gone)
