"""Keeps one family alive: start, wait until it is ready, watch it, and start it anew with backoff when it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from deploy.launcher.family import Command, Family
from deploy.launcher.problem import Problem

BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
STABLE_S = 60.0
"""A family that was ready for so long starts over at the first step of the backoff."""
READY_POLL_S = 0.25
WATCH_POLL_S = 1.0
BUSY = 0.25
"""A family that uses so much of one core, or waits for one for so long, is at work: a long step on a crowded machine looks like a
hang from outside."""
BUSY_COUNTS = 1 / 8
"""What a second of silence counts then: 8 s of patience become about 30. (SIGSTOP, a deadlock: nothing could run, 9 s.)"""

Print = Callable[[str, str], None]
"""print(name, line): one line of output under the prefix of a family."""


class ServiceFailed(Exception):
    """Raised by a probe when the service itself says that it cannot go on: no need to wait for a timeout."""


class Service(Protocol):
    """What the supervisor needs to know of a family."""

    name: str
    start_timeout_s: float
    stop_timeout_s: float
    hang_timeout_s: float
    """A service that fails its probe for so long after it was ready is taken down. Only the time that probes have waited
    counts: a machine that was asleep has not seen its services fail. One that works meanwhile, or would if it had a core,
    is slow, not hung, and gets several times as long."""

    def command(self) -> Command:
        """Prepares what must lie on disk, and says what to run."""

    async def probe(self) -> None:
        """Returns if the service does its work; does not return, or raises, otherwise. Raises ServiceFailed if it is lost."""


class Work:
    """How much a family has to do between two looks: what it uses of the cores, and how long its threads wait for one."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._last: tuple[float, float] | None = None

    def share(self) -> float:
        """Of one core, since the last look; 0 at the first."""
        now = time.monotonic(), self._family.runnable_s()
        before, self._last = self._last or now, now
        return (now[1] - before[1]) / max(now[0] - before[0], 1e-3)


class Supervisor:
    def __init__(self, service: Service, print_line: Print) -> None:
        self.service = service
        self.ready = asyncio.Event()
        self._print = print_line
        self._family: Family | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        return self._family.pid if self._family and self._family.returncode is None else None

    async def start(self) -> None:
        """The first start: raises Problem if the service does not become ready."""
        reason = await self._bring_up()
        if reason is not None:
            raise Problem(f"{self.service.name} did not start: {reason}; its own words stand above")

    async def keep(self) -> None:
        """Watches and restarts until `stop`. Never raises for a failure of the service."""
        attempt, ready_since = 0, time.monotonic()
        reason: str | None = await self._watch()
        while not self._stopping:
            self.ready.clear()
            if time.monotonic() - ready_since > STABLE_S:
                attempt = 0
            delay_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
            attempt += 1
            self._print(self.service.name, f"{reason}; starting it anew in {delay_s:g} s")
            await self._take_down()
            await asyncio.sleep(delay_s)
            reason = await self._bring_up()
            if reason is None:
                ready_since = time.monotonic()
                reason = await self._watch()

    async def stop(self) -> None:
        self._stopping = True
        self.ready.clear()
        if self._family is not None:
            await self._family.end(self.service.stop_timeout_s)

    async def kill(self) -> None:
        self._stopping = True
        await self._take_down()

    async def _take_down(self) -> None:
        if self._family is not None:
            await self._family.kill()

    async def _bring_up(self) -> str | None:
        """Starts the family and waits until it is ready; the reason if it failed."""
        started = time.monotonic()
        self._family = family = await Family.start(self.service.command())
        pump = asyncio.create_task(self._pump(family))
        pump.add_done_callback(lambda task: task.cancelled() or task.exception())
        while time.monotonic() - started < self.service.start_timeout_s:
            if family.returncode is not None:
                await pump
                return f"ended with status {family.returncode}"
            if await self._is_up():
                self.ready.set()
                self._print(self.service.name, f"ready after {time.monotonic() - started:.1f} s")
                return None
            await asyncio.sleep(READY_POLL_S)
        await family.kill()
        return f"not ready within {self.service.start_timeout_s:g} s"

    async def _is_up(self) -> bool:
        try:
            return await answers(self.service.probe, READY_POLL_S * 8)
        except ServiceFailed:  # a service that still loads may say no
            return False

    async def _watch(self) -> str:
        """Returns, with the reason, when the family has ended or no longer does its work."""
        family = self._family
        assert family is not None
        ended = asyncio.create_task(family.wait())
        longest_s = self.service.hang_timeout_s / 2
        unanswered_s, work = 0.0, Work(family)
        while True:
            await asyncio.wait([ended], timeout=WATCH_POLL_S)
            if ended.done():
                return f"ended with status {ended.result()}"
            asked_at = time.monotonic()
            try:
                healthy = await answers(self.service.probe, longest_s)
            except ServiceFailed as exc:
                ended.cancel()
                return str(exc)
            waited_s = min(time.monotonic() - asked_at, longest_s) + WATCH_POLL_S
            if healthy:
                unanswered_s, work = 0.0, Work(family)
            else:
                unanswered_s += waited_s * (BUSY_COUNTS if work.share() > BUSY else 1)
            if unanswered_s >= self.service.hang_timeout_s and not ended.done():
                ended.cancel()
                return f"does not answer since {unanswered_s:.0f} s"

    async def _pump(self, family: Family) -> None:
        async for line in family.lines():
            self._print(self.service.name, line)


async def answers(probe: Callable[[], Awaitable[None]], timeout_s: float) -> bool:
    """Whether the probe returned in time. Lets ServiceFailed through; any other failure means: not now."""
    try:
        await asyncio.wait_for(probe(), timeout_s)
    except ServiceFailed:
        raise
    except Exception:
        return False
    return True
