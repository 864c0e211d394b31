"""Limits that this process counts alone, each at its share of the processes: what there is while Valkey is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from frontend.domain import ids
from frontend.domain.limits import Account, Grant, Standing
from frontend.services.limits import rates
from frontend.services.limits.rates import BURST_US, MINUTE_US, Charge, Owed, Subject


class Meter(msgspec.Struct):
    """Of one key or tenant."""

    subject: Subject
    """As it was last seen."""
    at_us: int
    """When `owed` was so much."""
    owed: Owed = msgspec.field(default_factory=lambda: [0, 0])
    alone: Owed = msgspec.field(default_factory=lambda: [0, 0])
    """Of it, what Valkey does not know of."""
    held: int = 0
    """Leases of this process."""

    @property
    def limits(self) -> tuple[int | None, int | None]:
        return self.subject.rates


class Unsaid(msgspec.Struct, frozen=True):
    """What a subject was granted without Valkey, and still owes."""

    subject: Subject
    units: Owed
    """As many as one process alone would owe: of a limit that is not shared."""
    leases: list[str]


class LocalLimiter:
    """Also keeps what Valkey has granted to this process, so that falling back is no fresh burst."""

    def __init__(self, workers: int, clock_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000) -> None:
        """`workers`: processes that share each limit."""
        self._workers = workers
        self._clock_us = clock_us
        self._meters: dict[tuple[str, str], Meter] = {}
        self._leases: dict[str, Charge] = {}
        """By their ids."""
        self._unsaid: set[str] = set()
        """Of them, those that Valkey does not know of."""
        self._alone: set[tuple[str, str]] = set()
        """Meters that have been used without it."""

    async def acquire(self, account: Account, tokens: int, *, lease: bool) -> Grant:
        """Raises RateLimited."""
        subjects = rates.subjects_of(account)
        if not subjects:
            return Grant(account=account, id="", tokens=tokens, local=True, standing=Standing())
        return self.grant(account, subjects, tokens, lease=lease)

    async def settle(self, grant: Grant, tokens: int, *, refund_request: bool = False) -> None:
        self.release(grant, tokens, refund_request=refund_request)

    def grant(self, account: Account, subjects: tuple[Subject, ...], tokens: int, *, lease: bool) -> Grant:
        """Raises RateLimited."""
        workers = self._workers
        meters = self._now(subjects)
        owed = [each.owed for each in meters]
        refusal = rates.decide(subjects, owed, [each.held for each in meters], tokens, lease=lease, workers=workers)
        if refusal is not None:
            standing = rates.standing_of(subjects, owed, workers)
            raise rates.refused(refusal, owed[subjects.index(refusal.subject)], tokens, standing, workers)
        for meter in meters:
            self._add(meter, meter.owed, 1, tokens)
            self._add(meter, meter.alone, 1, tokens)
        name = ids.new("lease_") if lease else ""
        self._hold(name, subjects, meters)
        self._unsaid.update([name] if lease else [])
        self._alone.update((each.kind, each.name) for each in subjects)
        standing = rates.standing_of(subjects, owed, workers)
        return Grant(account=account, id=name, tokens=tokens, local=True, standing=standing)

    def mirror(self, subjects: tuple[Subject, ...], tokens: int, lease_id: str) -> None:
        """Valkey has granted this. It owes at most a burst of this process's share for it: without Valkey the next request
        waits for some seconds, and not for what three others should have counted."""
        meters = self._now(subjects)
        for meter in meters:
            before = list(meter.owed)
            self._add(meter, meter.owed, 1, tokens)
            for which, limit in enumerate(meter.limits):
                if limit is not None:
                    meter.owed[which] = min(meter.owed[which], max(before[which], limit * BURST_US))
        self._hold(lease_id, subjects, meters)

    def release(self, grant: Grant, tokens: int, *, refund_request: bool = False) -> None:
        charge = self._leases.pop(grant.id, None)
        if charge is None:
            return
        unsaid = grant.id in self._unsaid
        self._unsaid.discard(grant.id)
        back = (int(refund_request), grant.tokens - tokens)
        for meter, then in zip(self._now(charge.subjects), charge.owed, strict=True):
            meter.held -= 1
            for which, limit in enumerate(meter.limits):
                if limit is not None:
                    elapsed_us = meter.at_us - charge.at_us
                    units = rates.returned(back[which], then[which], limit, elapsed_us, self._workers)
                    self._owe(meter.owed, which, limit, -units)
                    self._owe(meter.alone, which, limit, -units if unsaid else 0)

    def holds(self, lease_id: str) -> bool:
        return lease_id in self._leases

    def say(self) -> list[Unsaid]:
        """To Valkey, which is there again. Once: what was said is not said again."""
        found = []
        leases: dict[tuple[str, str], list[str]] = {}
        for name in self._unsaid:
            for subject in self._leases[name].subjects:
                leases.setdefault((subject.kind, subject.name), []).append(name)
        for key in self._alone & self._meters.keys():
            meter = self._meters[key]
            self._drain(meter, self._clock_us())
            units = [each // self._workers for each in meter.alone]
            found.append(Unsaid(meter.subject, units, leases.get(key, [])))
            meter.alone = [0, 0]
        self._unsaid.clear()
        self._alone.clear()
        return found

    def forget(self) -> None:
        """What is as good as never seen."""
        now = self._clock_us()
        for key, meter in list(self._meters.items()):
            self._drain(meter, now)
            if not (meter.held or any(meter.owed)):
                del self._meters[key]

    def _now(self, subjects: Sequence[Subject]) -> list[Meter]:
        now, meters = self._clock_us(), []
        for subject in subjects:
            meter = self._meters.setdefault((subject.kind, subject.name), Meter(subject, now))
            meter.subject = subject
            self._drain(meter, now)
            meters.append(meter)
        return meters

    def _drain(self, meter: Meter, now_us: int) -> None:
        for which, limit in enumerate(meter.limits):
            for owed in (meter.owed, meter.alone):
                owed[which] = rates.drained(owed[which], limit, now_us - meter.at_us, self._workers)
        meter.at_us = now_us

    def _add(self, meter: Meter, owed: Owed, requests: int, tokens: int) -> None:
        for which, (limit, count) in enumerate(zip(meter.limits, (requests, tokens), strict=True)):
            if limit is not None:
                self._owe(owed, which, limit, count * MINUTE_US * self._workers)

    def _owe(self, owed: Owed, which: int, limit: int, units: int) -> None:
        """So much more; less, where `units` is negative."""
        owed[which] = max(0, min(owed[which] + units, limit * MINUTE_US * self._workers))

    def _hold(self, lease_id: str, subjects: tuple[Subject, ...], meters: list[Meter]) -> None:
        """Under no name none is."""
        if lease_id:
            self._leases[lease_id] = Charge(subjects, meters[0].at_us, [list(each.owed) for each in meters])
            for meter in meters:
                meter.held += 1
