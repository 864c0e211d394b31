"""Requests with an Idempotency-Key: each is worked on once, and whoever sends it again gets the reply of the first.

Knows no HTTP: a request is a fingerprint here, and its reply is bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import structlog

from frontend.domain.errors import InProgress, KeyReused, ServiceError
from frontend.domain.idempotency import IdempotencyRecord, StoredReply
from frontend.domain.storage import Database
from frontend.services.process import is_dead, this_process

log = structlog.get_logger("hermes2.idempotency")
KEPT_S = 24 * 3600
"""How long a reply can be had again, seconds."""
LEASE_S = 15.0
"""A request whose process has vanished can be taken over after so long, seconds; where it is known to be dead, at once."""
RENEWALS = 3
"""In the time of one lease."""

Claim = tuple[str, str]
"""A tenant and its key."""


class IdempotencyService:
    def __init__(
        self,
        database: Database,
        *,
        owner: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._owner = owner or this_process()
        self._clock = clock
        self._sleep = sleep
        self._held: dict[Claim, bytes] = {}
        """What this process works on, with fingerprints."""
        self._looks: WeakValueDictionary[Claim, asyncio.Lock] = WeakValueDictionary()
        """One of this process looks at a time: what another one is just claiming must not look abandoned."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Renews the leases of what is worked on."""
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])

    async def begin(self, tenant: str, key: str, fingerprint: bytes) -> StoredReply | None:
        """None: it is the caller's to answer or to give up. Raises InProgress, KeyReused, Unavailable."""
        claim = (tenant, key)
        async with self._looks.setdefault(claim, asyncio.Lock()):
            if (held := self._held.get(claim)) is not None:
                raise InProgress if held == fingerprint else KeyReused
            reply = await self._claim(tenant, key, fingerprint)
            if reply is None:
                self._held[claim] = fingerprint
        return reply

    async def _claim(self, tenant: str, key: str, fingerprint: bytes) -> StoredReply | None:
        now = self._clock()
        record = IdempotencyRecord(
            key=key,
            fingerprint=fingerprint,
            owner=self._owner,
            lease_until=now + LEASE_S,
            created_at=int(now),
            expires_at=int(now) + KEPT_S,
        )
        async with self._database.writing() as uow:
            before = await uow.idempotency.claim(tenant, record, now)
            if before is None:
                return None
            if before.fingerprint != fingerprint:
                raise KeyReused
            if before.reply is not None:
                return before.reply
            if not self._is_abandoned(before, now) or not await uow.idempotency.take_over(tenant, record, before):
                raise InProgress
        log.info("idempotency_taken_over", tenant=tenant)
        return None

    def _is_abandoned(self, record: IdempotencyRecord, now: float) -> bool:
        """What this process works on is held, and was found before."""
        return record.owner == self._owner or record.lease_until < now or is_dead(record.owner)

    async def answer(self, tenant: str, key: str, reply: StoredReply) -> None:
        """Whoever comes with the key now gets `reply`. Does not raise: the work is done, and its answer is due."""
        try:
            async with self._database.writing() as uow:
                await uow.idempotency.answer(tenant, key, self._owner, reply)
        except ServiceError as exc:
            log.warning("idempotency_reply_lost", tenant=tenant, error=exc.code)
        finally:
            self._held.pop((tenant, key), None)

    async def give_up(self, tenant: str, key: str) -> None:
        """Nothing has been done; the next request with the key is the first. Does not raise."""
        try:
            async with self._database.writing() as uow:
                await uow.idempotency.give_up(tenant, key, self._owner)
        except ServiceError as exc:
            log.warning("idempotency_not_given_up", tenant=tenant, error=exc.code)
        finally:
            self._held.pop((tenant, key), None)

    async def _keep(self) -> None:
        while True:
            await self._sleep(LEASE_S / RENEWALS)
            try:
                await self.renew()
            except ServiceError as exc:
                log.warning("idempotency_not_renewed", error=exc.code)
            except Exception as exc:  # a defect must not end the renewals
                log.error("idempotency_not_renewed", exc_info=exc)

    async def renew(self) -> None:
        """Once, with one statement. Raises Unavailable."""
        if claims := list(self._held):
            async with self._database.writing() as uow:
                await uow.idempotency.renew(self._owner, claims, self._clock() + LEASE_S)
