"""The queue before the engine, of one process: so many choices are in the engine at once, so many requests wait, and no more.

A request takes its slots when it is admitted and gives each back as its choice ends. Nobody passes the one whose turn it is:
one that needs many slots gets them as they become free. Slots are kept for tenants that have less than their share, as many as
they used lately: so one that asks now and then need not wait for an answer of another to end; nor for the prompts of others to
be read, of which the engine gets a few at a time. What does not fit into the queue is refused at once, with the time when there
should be a slot for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from frontend.domain.errors import Overloaded
from frontend.observability import tracing
from frontend.services.limits.backlog import Backlog, Wish
from frontend.services.limits.lately import Lately
from frontend.services.limits.pace import Pace

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
"""Of so many slots one is always kept for who has less than its share."""
OVERBOOKED = 2
"""So many are told to come for each slot that should be free then: some never come, and what was estimated is not certain."""
SURE_SHARE = 0.75
"""Of the longest wait: who should have to wait longer than that is not let into the queue."""
WAIT_SHARE = 1 / 40
"""Nor who should have to wait longer than this share of the time that a slot is held, unless it has less than its share of the
slots: of 16, one becomes free in 2.5 times that. At 10 x a 48th cost up to seven hundredths of the tokens, and with a 32nd the
slowest first tokens took a third longer (`python -m perf overload`).
"""
SHORT_WAIT_S = 0.05
"""Nobody is refused for less: one that is told to come again comes later than that."""
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
        if tokens:
            self._queue.served(self, tokens)

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
        pace: Pace | None = None,
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
        self._lately = Lately()
        self._pace = pace or Pace(slots)
        self._later: asyncio.TimerHandle | None = None
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

    def served(self, place: Place, tokens: int) -> None:
        self._backlog.served(place.tenant, tokens)
        self._pace.has_read(place)
        if self.free:  # it may be another's turn now
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
            self._pace.has_read(place)
        self._held_s += NEWER_WEIGHT * (self._clock() - place.since - self._held_s)
        self._any_ended = True
        self._note(place.tenant)
        self._admit()

    def _note(self, tenant: str) -> None:
        self._lately.hold(tenant, self._backlog.held[tenant], self._clock(), self._held_s)

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
            too_long_s = min(too_long_s, max(self._wait_share * self._held_s, SHORT_WAIT_S))
        free = max(self.free - self._kept_from(surplus), 0)  # who waits for one of these, waits for the engine to read
        return self._backlog.bounded - free > self._max_waiting or self._until_free_s(surplus) > too_long_s

    def _until_free_s(self, wish: Wish) -> float:
        """Until all that wait are let in, about: if the slots that are taken are held as long as others were lately."""
        slots = self._backlog.slots + self._kept_from(wish) - self.free
        if slots <= 0:
            return self._backlog.bounded * self._pace.apart_s(self._clock(), self._held_s)
        rounds, slots = divmod(slots - 1, self.slots)
        since = self._clock()
        for place in self._running:  # in the order in which they began
            slots -= place.held
            if slots < 0:
                since = place.since
                break
        return max(since + self._held_s - self._clock(), 0) + rounds * self._held_s

    def _admit(self) -> None:
        while (first := self._next()) is not None:
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
            self._pace.let_in(first, now)
            self._note(first.tenant)
            first.granted.set_result(None)
        self._look_again_later()

    def _look_again_later(self) -> None:
        """As soon as the pace allows it: nothing else need happen until then."""
        wait_s = self._wait_for_pace_s()
        if wait_s > 0 and self._backlog.tenants and self._later is None:
            self._later = asyncio.get_running_loop().call_later(wait_s, self._look_again)

    def _look_again(self) -> None:
        self._later = None
        self._admit()

    def _wait_for_pace_s(self) -> float:
        """0 while nothing runs, too."""
        now = self._clock()
        return self._pace.next_at(now, self._held_s) - now if self._running else 0.0

    def _next(self) -> Place | None:
        """Whose turn it is, if there are slots for it. Where it has to leave them to tenants with less than their share, or has
        to wait until the engine has read, those may pass it."""
        first = self._backlog.next()
        if first is not None and not self._fits(first) and first.slots <= self.free:
            first = self._backlog.next(self._has_less_than_its_share)
        if first is None or not self._fits(first):
            return None
        assert isinstance(first, Place)
        return first

    def _fits(self, wish: Wish) -> bool:
        if self._has_less_than_its_share(wish):
            return wish.slots <= self.free
        return wish.slots <= self.free - self._kept_from(wish) and self._wait_for_pace_s() <= 0

    def _has_less_than_its_share(self, wish: Wish) -> bool:
        """Also with what it wishes."""
        return self._backlog.held[wish.tenant] + wish.slots <= self._share

    @property
    def _share(self) -> int:
        """With one tenant more than there are, nobody's share has to be taken from what others run."""
        return self.slots // (self._backlog.active + 1)

    def _kept_from(self, wish: Wish) -> int:
        """Free slots that it must leave for those that have less than their share, as many as they should need: what they used
        lately, and its square root more because they do not come evenly, less what they hold. A wish for more slots than there
        would be then gets them once those others have ended."""
        if self._has_less_than_its_share(wish):
            return 0
        share, used, held = self._share, 0.0, 0
        for tenant, slots in self._lately.means(self._clock(), self._held_s):
            if tenant != wish.tenant and self._backlog.held[tenant] <= share:
                used += min(slots, share)
                held += self._backlog.held[tenant]
        needed = round(used + math.sqrt(used)) - held
        return max(self._kept, min(needed, self.slots - wish.slots))

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
            self._pace.refused(self._clock())
            message = "The service has as many requests as it can work on. Please try again."
            place.granted.set_exception(Overloaded(message, retry_after_s=self._appointment(place)))
        self._withdraw(place)
        self._admit()

    def _appointment(self, place: Place) -> float:
        """Seconds until there should be a slot. Those before it are the ones that wait, and those of its own tenant that were
        told to come again."""
        now, slot_s = self._clock(), self._held_s / self.slots
        behind_queue = now + max(self._until_free_s(place), place.slots * slot_s)
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
