"""What every request passes: its share of what its key and tenant may have, then a place in the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import msgspec

from frontend.domain.errors import RateLimited
from frontend.domain.generation import GenerationDelta
from frontend.domain.limits import Grant, Standing
from frontend.domain.ports import Limiter
from frontend.domain.principal import Principal
from frontend.domain.record import Record
from frontend.services.generate import Reply
from frontend.services.limits.plans import Plans
from frontend.services.limits.queue import FairQueue, Place
from frontend.services.limits.tally import Tally, is_ours

Deltas = AsyncGenerator[GenerationDelta, None]


class Entry:
    """A generation's share, and its place once it has one."""

    def __init__(self, grant: Grant, tenant: str, record: Record) -> None:
        self.grant = grant
        self.tenant = tenant
        self.place: Place | None = None
        self.tally = Tally(record)
        self.kept = False
        """By who runs the generation, longer than by who took it."""

    async def follow(self, reply: Reply) -> Deltas:
        """The same generation. Its tokens are counted as they come, its slots are free as its choices end."""
        with self.tally.of(reply):
            async with aclosing(reply.deltas) as deltas:
                async for delta in deltas:
                    self._hear(delta)
                    yield delta

    def _hear(self, delta: GenerationDelta) -> None:
        tokens = self.tally.hear(delta)
        if self.place is not None:
            self.place.served(tokens)
            self.place.shrink(self.tally.open_choices)

    @property
    def used_tokens(self) -> int:
        """Nothing of what failed before its first token; of what was cut, what there was."""
        return 0 if self.tally.came_to_nothing else self.tally.prompt_tokens + self.tally.answer_tokens

    @property
    def never_was(self) -> bool:
        """The service could not do it: not even the request counts."""
        return self.tally.came_to_nothing and self.tally.is_ours


class Kept(msgspec.Struct, frozen=True):
    """A share that does not end where it was taken."""

    record: Record
    end: Callable[[], asyncio.Task[None]]


class Gate:
    def __init__(self, limiter: Limiter, plans: Plans, queue: FairQueue) -> None:
        self._limiter = limiter
        self._plans = plans
        self._queue = queue
        self._settling: set[asyncio.Task[None]] = set()

    @property
    def widest(self) -> int:
        """Choices of one request that the engine can have at once."""
        return self._queue.widest

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On the way out everything that was taken is settled."""
        try:
            yield
        finally:
            if self._settling:
                await asyncio.wait(self._settling)

    async def count(self, principal: Principal) -> None:
        """A request that asks no model. Raises RateLimited."""
        await self._take(principal, 0, lease=False)

    @asynccontextmanager
    async def counted(self, principal: Principal, tokens: int, model: str) -> AsyncIterator[None]:
        """A request whose `tokens` the `model` embeds. Raises RateLimited."""
        principal.record.model = model
        grant = await self._take(principal, tokens, lease=False)
        principal.record.read(tokens)
        try:
            yield
        except Exception as exc:
            if is_ours(exc):
                await asyncio.shield(self._settle(grant, 0, refund_request=True))
            raise

    async def _take(self, principal: Principal, tokens: int, *, lease: bool) -> Grant:
        taking = asyncio.ensure_future(self._limiter.acquire(self._plans.account(principal), tokens, lease=lease))
        try:
            grant = await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._spawn(self._undo(taking))
            raise
        except RateLimited as exc:
            show(principal, exc.standing)
            raise
        show(principal, grant.standing)
        return grant

    async def _undo(self, taking: asyncio.Future[Grant]) -> None:
        """Nobody is there any more who could use it."""
        await asyncio.wait([taking])
        if not taking.cancelled() and taking.exception() is None:
            await self._limiter.settle(taking.result(), 0)

    @asynccontextmanager
    async def share(self, reply: Reply, principal: Principal) -> AsyncIterator[Entry]:
        """Taken for the most that the reply can use; what it did not use is given back in the end. Raises RateLimited."""
        principal.record.model = reply.model.root
        grant = await self._take(principal, reply.prompt_tokens + reply.most_tokens, lease=True)
        entry = Entry(grant, principal.tenant, principal.record)
        try:
            yield entry
        except Exception as exc:
            entry.tally.fail(exc)
            raise
        finally:
            if not entry.kept:
                await asyncio.shield(self._end(entry))

    def keep(self, entry: Entry) -> Kept:
        """The share does not end where it was taken, but where `end` of what is returned is called."""
        entry.kept = True
        return Kept(entry.tally.record, partial(self._end, entry))

    def _end(self, entry: Entry) -> asyncio.Task[None]:
        """Goes on if nobody waits for it."""
        return self._settle(entry.grant, entry.used_tokens, refund_request=entry.never_was)

    def _settle(self, grant: Grant, tokens: int, *, refund_request: bool) -> asyncio.Task[None]:
        return self._spawn(self._limiter.settle(grant, tokens, refund_request=refund_request))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    @asynccontextmanager
    async def enter(self, reply: Reply, principal: Principal) -> AsyncIterator[Entry]:
        """A share and a place, until the generation has ended. Raises RateLimited, Overloaded."""
        async with self.share(reply, principal) as entry, self._place(reply, entry):
            yield entry

    @asynccontextmanager
    async def _place(self, reply: Reply, entry: Entry, *, patient: bool = False) -> AsyncIterator[None]:
        """How long it waited is recorded, also of who is not let in."""
        record, came = entry.tally.record, time.perf_counter()
        place = self._queue.place(entry.tenant, reply.n, reply.prompt_tokens, patient=patient)
        try:
            async with place as entry.place:
                record.waited(time.perf_counter() - came)
                yield
        finally:
            if entry.place is None:
                record.waited(time.perf_counter() - came)

    def through(self, reply: Reply, principal: Principal) -> Reply:
        """The same; it enters when its first delta is asked for, which raises then what `enter` raises."""
        return msgspec.structs.replace(reply, deltas=self._through(reply, principal))

    async def _through(self, reply: Reply, principal: Principal) -> Deltas:
        async with self.enter(reply, principal) as entry, aclosing(entry.follow(reply)) as deltas:
            async for delta in deltas:
                yield delta

    @staticmethod
    def follow(reply: Reply, entry: Entry) -> Deltas:
        """The same generation, by who has entered."""
        return entry.follow(reply)

    async def patiently(self, reply: Reply, entry: Entry) -> Deltas:
        """The same generation, with a share that was taken before: it begins when there is a place, whenever that is."""
        async with self._place(reply, entry, patient=True), aclosing(entry.follow(reply)) as deltas:
            async for delta in deltas:
                yield delta

    async def aside(self, reply: Reply, tenant: str, new_tokens: int) -> Deltas:
        """A generation of the service's own making, for which no key has to pay; the tenant's turn in the queue does.

        `new_tokens`: those of its prompt that the engine has not read yet.
        """
        tally = Tally(Record())
        async with (
            self._queue.place(tenant, reply.n, new_tokens, patient=True) as place,
            aclosing(reply.deltas) as deltas,
        ):
            with tally.of(reply):
                async for delta in deltas:
                    place.served(tally.hear(delta))
                    yield delta


def show(principal: Principal, standing: Standing) -> None:
    """In the reply's headers."""
    principal.standing.requests, principal.standing.tokens = standing.requests, standing.tokens
