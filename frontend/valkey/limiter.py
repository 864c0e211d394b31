"""Limits that all processes count together, in one atomic function of Valkey; while Valkey is away, at this process's share.

What becomes of a command that took too long is not known: Valkey may carry it out when it wakes. Its lease is given back then.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog
from prometheus_client import Counter, Gauge
from valkey.exceptions import ResponseError

from frontend.domain import ids
from frontend.domain.errors import RateLimited
from frontend.domain.limits import Account, Grant
from frontend.observability import tracing
from frontend.services.limits import rates
from frontend.services.limits.local import LocalLimiter
from frontend.services.limits.rates import NAMES, Charge, Owed, Refusal, Subject
from frontend.valkey.breaker import Breaker
from frontend.valkey.pipe import Pipe, open_pipe

log = structlog.get_logger("hermes2.limits")
LEASE_S = 30.0
"""A lease that nobody renews ends: that of a process that has died."""
RENEW_S = 10.0
TICK_S = 1.0
MOST_PENDING = 10_000
SOURCE = Path(__file__).with_suffix(".lua").read_text()
REJECTIONS = Counter("hermes2_limit_rejections", "Requests that were refused for their share.", ["limit"])
UNSETTLED = Counter(
    "hermes2_limit_settle_failures", "What was to be given back, and Valkey did not answer; tried again."
)
UNRENEWED = Counter("hermes2_limit_renew_failures", "Leases that were to be renewed, and Valkey did not answer.")
LOCAL = Gauge("hermes2_limits_local", "Processes that count limits alone, at their share.", multiprocess_mode="livesum")


class Library:
    """The functions, under names that hold a hash of their text: two versions of the service do not meet."""

    def __init__(self, pipe: Pipe, source: str) -> None:
        version = hashlib.sha256(source.encode()).hexdigest()[:12]
        self._pipe = pipe
        self._source = source.replace("hm2_limit_@", f"hm2_limit_{version}")
        self._prefix = f"hm2_limit_{version}_"
        self._loading: asyncio.Task[None] | None = None

    async def call(self, function: str, keys: Sequence[str], args: Sequence[object]) -> Any:
        """Loads the functions where Valkey does not know them: it is new, or was started anew."""
        command = ("FCALL", self._prefix + function, len(keys), *keys, *args)
        try:
            return await self._pipe.ask(*command)
        except ResponseError as exc:
            if "Function not found" not in str(exc):
                raise
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)
        return await self._pipe.ask(*command)

    async def _load(self) -> None:
        """Once for all that miss them: a hundred times their text fills the connection."""
        await self._pipe.ask("FUNCTION", "LOAD", "REPLACE", self._source)


class Settlement(msgspec.Struct, frozen=True):
    """What is to be given back of a charge."""

    charge: Charge
    requests: int
    tokens: int


class ValkeyLimiter:
    def __init__(self, pipe: Pipe, breaker: Breaker, local: LocalLimiter, source: str = SOURCE) -> None:
        self._pipe = pipe
        self._breaker = breaker
        self._local = local
        self._library = Library(pipe, source)
        self._leases: dict[str, Charge] = {}
        """Of this process, that Valkey has."""
        self._pending: dict[str, Settlement] = {}
        """Leases that Valkey may have, and should not."""

    async def acquire(self, account: Account, tokens: int, *, lease: bool) -> Grant:
        subjects = rates.subjects_of(account)
        if not subjects:
            return await self._local.acquire(account, tokens, lease=lease)
        lease_id = ids.new("lease_") if lease else ""
        try:
            reply = await self._ask(subjects, tokens, lease_id)
            if reply is None:
                return self._local.grant(account, subjects, tokens, lease=lease)
            refuser, which, wait_us, at_us, *flat = reply
            owed = [flat[i : i + 2] for i in range(0, len(flat), 2)]
            standing = rates.standing_of(subjects, owed)
            if refuser:
                refusal = Refusal(subjects[refuser - 1], NAMES[which - 1], None if wait_us < 0 else wait_us)
                raise rates.refused(refusal, owed[refuser - 1], tokens, standing)
        except RateLimited as exc:
            REJECTIONS.labels(exc.limit).inc()
            raise
        if lease:
            self._leases[lease_id] = Charge(subjects, at_us, owed)
        self._local.mirror(subjects, tokens, lease_id)
        return Grant(account=account, id=lease_id, tokens=tokens, local=False, standing=standing)

    async def _ask(self, subjects: tuple[Subject, ...], tokens: int, lease_id: str) -> list[int] | None:
        """As acquire of limiter.lua. None: Valkey is away; if it carries the command out later, the lease is not meant."""
        args = [tokens, lease_id, int(LEASE_S * 1e6), *limits_of(subjects)]
        reply, sent = None, False

        async def ask() -> list[int]:
            nonlocal sent
            sent = True
            return cast(list[int], await self._library.call("acquire", keys_of(subjects), args))

        try:
            with tracing.span("limits.take", calls=True):
                reply = await self._breaker.run(ask, None)
        finally:
            if reply is None and sent and lease_id:
                self._pending[lease_id] = Settlement(Charge(subjects, 0, [[0, 0]] * len(subjects)), 0, 0)
        return reply

    async def settle(self, grant: Grant, tokens: int, *, refund_request: bool = False) -> None:
        self._local.release(grant, tokens, refund_request=refund_request)
        charge = self._leases.pop(grant.id, None)
        if charge is None:
            return
        self._pending[grant.id] = Settlement(charge, int(refund_request), grant.tokens - tokens)
        if not await self._give_back(grant.id):
            UNSETTLED.inc()

    async def _give_back(self, lease_id: str) -> bool:
        """Whether it is done. Twice is as good as once."""
        what = self._pending[lease_id]
        charge = what.charge
        args: list[object] = [lease_id, what.requests, what.tokens, charge.at_us]
        for subject, owed in zip(charge.subjects, charge.owed, strict=True):
            args += [*(-1 if limit is None else limit for limit in subject.rates), *owed]
        if await self._call("settle", keys_of(charge.subjects), args) is None:
            return False
        self._pending.pop(lease_id, None)
        return True

    async def renew(self) -> None:
        """All leases of this process that Valkey knows of, with one call."""
        if not self._leases:
            return
        keys: dict[str, int] = {}
        args: list[object] = [int(LEASE_S * 1e6)]
        for name, charge in self._leases.items():
            for key in keys_of(charge.subjects)[1::2]:
                args += [keys.setdefault(key, len(keys) + 1), name]
        if await self._call("renew", list(keys), args) is None:
            UNRENEWED.inc()

    async def give_back(self) -> None:
        """What was not given back when it should have been, oldest first, as long as Valkey answers."""
        while len(self._pending) > MOST_PENDING:  # they end by themselves
            del self._pending[next(iter(self._pending))]
        for lease_id in list(self._pending):
            if lease_id in self._pending and not await self._give_back(lease_id):
                return

    async def adopt(self) -> None:
        """Tells Valkey what was granted without it, as far as it is still owed or under way."""
        owed: dict[str, dict[Subject, Owed]] = {}
        at_us = 0
        for each in self._local.say():
            limits = limits_of([each.subject])[:2]
            reply = await self._call(
                "adopt", keys_of([each.subject]), [int(LEASE_S * 1e6), *limits, *each.units, *each.leases]
            )
            if reply is None:
                return
            at_us = reply[0]
            for lease_id in each.leases:
                owed.setdefault(lease_id, {})[each.subject] = reply[1:]
        for lease_id, found in owed.items():
            charge = Charge(tuple(found), at_us, list(found.values()))
            if self._local.holds(lease_id):
                self._leases[lease_id] = charge
            else:  # its generation has ended meanwhile
                self._pending[lease_id] = Settlement(charge, 0, 0)

    async def check(self) -> None:
        await self._breaker.run(lambda: self._pipe.ask("PING"), False)
        LOCAL.set(self._breaker.failed)

    async def _call(self, function: str, keys: Sequence[str], args: Sequence[object]) -> Any:
        """None: Valkey is away."""
        return await self._breaker.run(lambda: self._library.call(function, keys, args), None)

    async def keep(self) -> None:
        """Renews, and gives back. Also finds a Valkey that is there again, so that no request has to."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1
            try:
                await self._tick(renew=ticks % round(RENEW_S / TICK_S) == 0)
            except Exception as exc:  # a defect must not end the renewals
                log.error("limits_failed", exc_info=exc)

    async def _tick(self, *, renew: bool) -> None:
        await self.check()
        if renew:
            await self.renew()
            self._local.forget()
        if not self._breaker.failed:
            await self.adopt()
            await self.give_back()


def keys_of(subjects: Sequence[Subject]) -> list[str]:
    """Of each: what it owes, its leases."""
    return [f"hm2:limit:{what}:{each.kind}:{each.name}" for each in subjects for what in ("owed", "leases")]


def limits_of(subjects: Sequence[Subject]) -> list[int]:
    """-1: none."""
    limits = ((*each.rates, each.limits.concurrency) for each in subjects)
    return [-1 if limit is None else limit for three in limits for limit in three]


@asynccontextmanager
async def open_limiter(url: str, breaker: Breaker, workers: int) -> AsyncIterator[ValkeyLimiter]:
    """`url`: unix:///path or valkey://host:port/db. `workers`: processes that share the limits while Valkey is away."""
    async with open_pipe(url) as pipe:
        limiter = ValkeyLimiter(pipe, breaker, LocalLimiter(workers))
        keeper = asyncio.create_task(limiter.keep())
        try:
            yield limiter
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
