"""Responses that run without anybody waiting: their tasks, and the events that any process can follow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

import msgspec
import structlog

from frontend.domain.errors import NotFound, QuotaExceeded, ServiceError
from frontend.domain.record import Record
from frontend.domain.responses import Response, ResponseEvent, StatusChanged
from frontend.domain.storage import Database
from frontend.observability.fields import figures, milliseconds, without_none
from frontend.services.limits.gate import Kept
from frontend.services.responses.run import ResponseRun

log = structlog.get_logger("hermes2.responses")
FLUSH_S = 0.25
"""Events reach the database this often; what a killed process has not written is lost with its response."""
POLL_S = 0.1
"""How often a follower in another process looks for more."""


class LiveEvents:
    """The events of a response that this process runs, for any number of readers."""

    def __init__(self) -> None:
        self._events: list[ResponseEvent] = []
        self._more = asyncio.Event()
        self._ended = False

    @property
    def status(self) -> str:
        """With which it ended; `cancelled` if somebody has ended it, or the service has."""
        last = self._events[-1] if self._events else None
        return last.response.status if isinstance(last, StatusChanged) and not last.response.running else "cancelled"

    def append(self, event: ResponseEvent) -> None:
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        woken, self._more = self._more, asyncio.Event()
        woken.set()

    async def behind(self, after: int) -> AsyncGenerator[ResponseEvent, None]:
        """Numbers are positions."""
        position = after + 1
        while True:
            more = self._more
            while position < len(self._events):
                yield self._events[position]
                position += 1
            if self._ended:
                return
            await more.wait()


class Running(msgspec.Struct, frozen=True):
    task: asyncio.Task[None]
    events: LiveEvents


class BackgroundRuns:
    def __init__(self, database: Database, *, most_per_tenant: int, drain_s: float) -> None:
        self._database = database
        self._most_per_tenant = most_per_tenant
        self._drain_s = drain_s
        self._running: dict[tuple[str, str], Running] = {}
        self._of_tenant: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On the way out they may finish for a while; then they are stored as far as they came."""
        try:
            yield
        finally:
            if tasks := [running.task for running in self._running.values()]:
                _, late = await asyncio.wait(tasks, timeout=self._drain_s)
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late)

    @contextlib.contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """Holds a place while a response is being prepared; `start` takes one of its own. Raises QuotaExceeded."""
        if self._of_tenant[tenant] >= self._most_per_tenant:
            raise QuotaExceeded(
                f"At most {self._most_per_tenant} responses run in the background at the same time.", param="background"
            )
        self._of_tenant[tenant] += 1
        try:
            yield
        finally:
            self._leave(tenant)

    def start(self, tenant: str, response_id: str, run: ResponseRun, share: Kept) -> None:
        """`share`: what it runs on; ended with it."""
        events, began = LiveEvents(), time.perf_counter()
        task = asyncio.create_task(self._run(tenant, response_id, run, events))
        key = tenant, response_id
        self._running[key] = Running(task, events)
        self._of_tenant[tenant] += 1
        task.add_done_callback(lambda _: self._ended(key))
        task.add_done_callback(lambda _: tell(tenant, response_id, events.status, share.record, began))
        task.add_done_callback(lambda _: share.end())

    def _ended(self, key: tuple[str, str]) -> None:
        running = self._running.pop(key)
        running.events.end()
        self._leave(key[0])

    def _leave(self, tenant: str) -> None:
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]

    async def cancel(self, tenant: str, response_id: str) -> None:
        """If it runs here. Returns when it has stopped."""
        if running := self._running.get((tenant, response_id)):
            running.task.cancel()
            await asyncio.wait([running.task])

    async def _run(self, tenant: str, response_id: str, run: ResponseRun, live: LiveEvents) -> None:
        reader = asyncio.create_task(self._read(run, live))
        try:
            while not reader.done() and await self._flush(tenant, response_id, run):
                await asyncio.wait([reader], timeout=FLUSH_S)
        finally:
            reader.cancel()
            await asyncio.wait([reader])
        if not reader.cancelled() and (error := reader.exception()) is not None:
            log.error("background_response_broken", response=response_id, exc_info=error)

    @staticmethod
    async def _read(run: ResponseRun, live: LiveEvents) -> None:
        async with contextlib.aclosing(run.events()) as events:
            async for event in events:
                live.append(event)

    async def _flush(self, tenant: str, response_id: str, run: ResponseRun) -> bool:
        """False if the response does not run any more: somebody has cancelled or deleted it."""
        events = run.take_events()
        try:
            async with self._database.writing() as uow:
                response = await uow.responses.get(tenant, response_id)
                if response.status == "queued" and events:
                    await uow.responses.start(tenant, response_id)
                if response.running:
                    await uow.responses.add_events(tenant, response_id, events)
                return response.running
        except NotFound:
            return False
        except ServiceError as exc:
            run.put_back(events)
            log.warning("events_not_stored", response=response_id, error=exc.code)
            return True

    async def follow(self, tenant: str, response_id: str, after: int) -> AsyncGenerator[ResponseEvent, None]:
        """The events behind number `after`, as they come, until the last one."""
        seen_here = False
        if running := self._running.get((tenant, response_id)):
            async with contextlib.aclosing(running.events.behind(after)) as events:
                async for event in events:
                    after, seen_here = event.n, True
                    yield event
                    if isinstance(event, StatusChanged) and not event.response.running:
                        return
        while True:
            async with self._database.reading() as uow:
                response = await uow.responses.get(tenant, response_id)
                known = await uow.responses.events(tenant, response_id, after - 1)
            for event in known:
                if event.n > after:
                    yield event
            if not response.running:
                if not known and after >= 0 and not seen_here:
                    known = await self._told(tenant, response_id)
                    if after == (known[-1].n if known else -1) + 1 and response.status != "failed":
                        return  # that was the end
                    yield ended(response, after + 1)
                    return
                for event in self._last(response, known, after):
                    yield event
                return
            after = max(after, known[-1].n) if known else after
            await asyncio.sleep(POLL_S)

    async def _told(self, tenant: str, response_id: str) -> list[ResponseEvent]:
        async with self._database.reading() as uow:
            return await uow.responses.events(tenant, response_id, -1)

    @staticmethod
    def _last(response: Response, known: Sequence[ResponseEvent], after: int) -> Iterator[ResponseEvent]:
        """`known`: what was stored from number `after` on; nothing if it was ended before it had begun, or from elsewhere."""
        if not known and after < 0:
            yield StatusChanged(n=0, name="created", response=response)
            after = 0
        yield ended(response, max(known[-1].n if known else 0, after) + 1)


def tell(tenant: str, response_id: str, outcome: str, record: Record, began: float) -> None:
    """One line for each: its request has had its own long before. `began`: seconds of time.perf_counter."""
    fields = without_none(
        response=response_id,
        outcome=outcome,
        tenant=tenant,
        **figures(record),
        duration_ms=milliseconds(time.perf_counter() - began),
    )
    log.info("background_response", **fields)


def ended(response: Response, n: int) -> ResponseEvent:
    assert response.status not in ("queued", "in_progress")
    return StatusChanged(n=n, name=response.status, response=response)
