"""The queue before the engine, of one process: so many choices are in the engine at once, so many requests wait, and no more.

A request takes its slots when it is admitted and gives each back as its choice ends. Nobody passes the one whose turn it is:
one that needs many slots gets them as they become free. A few slots are kept for tenants that have less than their share: so
one that asks now and then need not wait for an answer of another to end. What does not fit into the queue is refused at once,
with the time when there should be a slot for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from frontend.domain.errors import Overloaded
from frontend.observability import tracing
from frontend.services.limits.backlog import Backlog, Wish

RUNNING = Gauge(
    "hermes2_admission_slots_taken", "Choices that the engine was given and has not ended.", multiprocess_mode="livesum"
)
WAITING = Gauge("hermes2_admission_waiting", "Requests that wait for a slot.", multiprocess_mode="livesum")
REFUSED = Counter("hermes2_admission_rejections", "Requests that were refused for want of a slot.", ["reason"])
WAITED = Histogram(
    "hermes2_admission_wait_seconds",
    "From a request's coming to its slot; those that were refused are not in it.",
    buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 120),
)
Reason = Literal["full", "displaced", "waited"]
SLOTS_PER_KEPT_ONE = 16
"""Of so many slots one is kept for who has less than its share."""
OVERBOOKED = 2
"""So many are told to come for each slot that should be free then: some never come, and what was estimated is not certain."""
SURE_SHARE = 0.25
"""Of the longest wait: who should have to wait longer than that is not let into the queue."""
WAIT_SHARE = 0.125
"""Nor who should have to wait longer than this share of the time that a slot is held, which is how long as many wait as an
eighth of the slots where slots become free at an even pace. They do not where answers are equally long: those that began
together end together, and who came in between waited for a second (`python -m perf overload`, 10 x: TTFT p99 1.5 of that
without overload instead of 1.84)."""
HELD_AT_FIRST_S = 1.0
"""How long a slot is held, before any was."""
NEWER_WEIGHT = 0.1
LONGEST_RETRY_S = 30.0
"""The SDKs wait as long as they are told up to 60 s; beyond that they do as they like."""
MOST_TOLD = 1024
"""Tenants whose refused requests are remembered."""


class Place(Wish):
    """A place in the engine, or in the queue before it."""

    def __init__(
        self, queue: FairQueue, tenant: str, slots: int, prompt_tokens: int, *, patient: bool, since: float
    ) -> None:
        super().__init__(tenant, slots, prompt_tokens, patient=patient)
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.since = since
        """When it came, and then when it was granted; seconds of the queue's clock."""
        self.waits = True
        self.held = 0
        """Slots."""
        self._queue = queue

    def served(self, tokens: int) -> None:
        """The tenant has had so many tokens of an answer."""
        self._queue.served(self.tenant, tokens)

    def shrink(self, choices: int) -> None:
        """So many are still going on."""
        self._queue.give_back(self, self.held - choices)


class FairQueue:
    def __init__(
        self,
        slots: int,
        *,
        max_waiting: int,
        max_wait_s: float,
        wait_share: float = WAIT_SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self.free = slots
        self._kept = slots // SLOTS_PER_KEPT_ONE
        self.widest = slots - self._kept
        """Slots that one tenant can have."""
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._wait_share = wait_share
        self._clock = clock
        self._backlog = Backlog()
        self._oldest: deque[Place] = deque()
        """Those that may not wait for ever, by their coming; some of them do not wait any more."""
        self._running: dict[Place, None] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._held_s = HELD_AT_FIRST_S
        self._any_ended = False
        """Before, nothing is known of how long a slot is held."""
        self._told: OrderedDict[str, float] = OrderedDict()
        """When each tenant's last refused request was told to come again."""

    @property
    def waiting(self) -> int:
        return sum(1 for _ in self._backlog)

    @contextlib.asynccontextmanager
    async def place(
        self, tenant: str, choices: int, prompt_tokens: int, *, patient: bool = False
    ) -> AsyncIterator[Place]:
        """Waits for a slot for each choice, or for all that one tenant can have, and gives back what is left of them in the end.

        Who is `patient` waits as long as it takes, behind its tenant's other requests. Raises Overloaded.
        """
        wanted = min(choices, self.widest)
        place = Place(self, tenant, wanted, prompt_tokens, patient=patient, since=self._clock())
        self._come(place)
        try:
            if not place.granted.done():
                with tracing.span("queue.wait"):
                    await place.granted
            await place.granted
            yield place
        finally:
            self._go(place)

    def served(self, tenant: str, tokens: int) -> None:
        self._backlog.served(tenant, tokens)
        if self.free:  # it may be another's turn now, who may have the slot that is kept
            self._admit()

    def give_back(self, place: Place, slots: int) -> None:
        if slots <= 0:
            return
        place.held -= slots
        self._backlog.give_back(place.tenant, slots)
        self.free += slots
        RUNNING.dec(slots)
        if not place.held:
            del self._running[place]
        self._held_s += NEWER_WEIGHT * (self._clock() - place.since - self._held_s)
        self._any_ended = True
        self._admit()

    def _come(self, place: Place) -> None:
        self._backlog.join(place)
        WAITING.inc()
        self._admit()
        if not (place.patient or place.granted.done()) and self._is_too_long(surplus := self._surplus(place)):
            self._refuse(surplus, "full" if surplus is place else "displaced")
        if not (place.granted.done() or place.patient):
            self._oldest.append(place)
            self._set_alarm()

    def _surplus(self, comer: Place) -> Place:
        surplus = self._backlog.surplus(comer)
        assert isinstance(surplus, Place)
        return surplus

    def _is_too_long(self, surplus: Place) -> bool:
        """Also if somebody would be refused later for having waited too long: better at once. Who has less than its share is
        given the time until one of those slots is free that others have beyond theirs."""
        too_long_s = SURE_SHARE * self._max_wait_s
        if self._any_ended and not self._has_less_than_its_share(surplus):
            too_long_s = min(too_long_s, self._wait_share * self._held_s)
        return self._backlog.bounded > self._max_waiting or self._until_free_s(self._backlog.slots) > too_long_s

    def _until_free_s(self, slots: int) -> float:
        """About: if those that are taken are held as long as others were lately."""
        rounds, slots = divmod(slots - 1, self.slots)
        since = self._clock()
        for place in self._running:  # in the order in which they began
            slots -= place.held
            if slots < 0:
                since = place.since
                break
        return max(since + self._held_s - self._clock(), 0) + rounds * self._held_s

    def _admit(self) -> None:
        while (first := self._backlog.next()) is not None and self._fits(first):
            assert isinstance(first, Place)
            if first.granted.cancelled():  # its task has not run yet
                self._withdraw(first)
                continue
            self._backlog.admit(first)
            first.waits = False
            WAITING.dec()
            now = self._clock()
            WAITED.observe(now - first.since)
            first.since, first.held = now, first.slots
            self.free -= first.slots
            RUNNING.inc(first.slots)
            self._running[first] = None
            first.granted.set_result(None)

    def _fits(self, wish: Wish) -> bool:
        """With one tenant more than there are, nobody's share has to be taken from what others run."""
        kept = 0 if self._has_less_than_its_share(wish) else self._kept
        return wish.slots <= self.free - kept

    def _has_less_than_its_share(self, wish: Wish) -> bool:
        """Also with what it wishes."""
        share = self.slots // (self._backlog.active + 1)
        return self._backlog.held[wish.tenant] + wish.slots <= share

    def _go(self, place: Place) -> None:
        """It has ended; or it was cancelled, perhaps between being granted its place and hearing of it."""
        if place.waits:
            self._withdraw(place)
            self._admit()  # it may have been the one that all others wait behind
        elif place.held:
            self.give_back(place, place.held)
        elif not place.granted.cancelled():
            place.granted.exception()  # it is known: asyncio would complain of one that nobody has seen

    def _withdraw(self, place: Place) -> None:
        self._backlog.leave(place)
        place.waits = False
        WAITING.dec()

    def _refuse(self, place: Place, reason: Reason) -> None:
        if not place.granted.cancelled():
            REFUSED.labels(reason).inc()
            message = "The service has as many requests as it can work on. Please try again."
            place.granted.set_exception(Overloaded(message, retry_after_s=self._appointment(place)))
        self._withdraw(place)
        self._admit()

    def _appointment(self, place: Place) -> float:
        """Seconds until there should be a slot. Those before it are the ones that wait, and those of its own tenant that were
        told to come again."""
        now, slot_s = self._clock(), self._held_s / self.slots
        behind_queue = now + max(self._until_free_s(self._backlog.slots), place.slots * slot_s)
        behind_told = self._told.pop(place.tenant, now) + place.slots * slot_s * self._backlog.tenants / OVERBOOKED
        when = min(max(behind_queue, behind_told), now + LONGEST_RETRY_S)
        self._told[place.tenant] = when
        if len(self._told) > MOST_TOLD:
            self._told.popitem(last=False)
        return when - now

    def _set_alarm(self) -> None:
        """One for all: everybody may wait equally long."""
        while self._oldest and self._oldest[0].granted.done():
            self._oldest.popleft()
        if self._alarm is None and self._oldest:
            left_s = self._oldest[0].since + self._max_wait_s - self._clock()
            self._alarm = asyncio.get_running_loop().call_later(max(left_s, 0), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._clock()
        while self._oldest and (self._oldest[0].granted.done() or self._oldest[0].since + self._max_wait_s <= now):
            place = self._oldest.popleft()
            if not place.granted.done():
                self._refuse(place, "waited")
        self._set_alarm()
