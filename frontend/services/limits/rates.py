"""The arithmetic of limits, without a clock or a place to keep anything: frontend/valkey/limiter.lua says the same in Lua.

GCRA, kept as what is owed: a request adds its cost to it, and time takes away what the limit gives. All in integers. What is
owed is counted in units of which one request (or one token) has MINUTE_US for each of the `workers` that share a limit: a
limit of L per minute pays L units back each microsecond, whatever L is, and no division rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from frontend.domain.errors import RateLimited
from frontend.domain.limits import UNLIMITED, Account, Allowance, LimitName, Limits, Standing

MINUTE_US = 60_000_000
BURST_US = 10_000_000
"""What a limit gives in so long can be had at once: in any minute not more than 7/6 of it."""
CONCURRENCY_RETRY_US = 1_000_000
"""Nobody knows when a generation ends; this is how often to ask."""
RATES: tuple[LimitName, ...] = ("requests", "tokens")
NAMES: tuple[LimitName, ...] = (*RATES, "concurrency")
WORDS: dict[LimitName, str] = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "concurrency": "concurrent generations",
}
OWNERS = {"key": "this API key", "tenant": "this tenant"}


Owed = list[int]
"""In units, in the order of RATES."""


class Subject(msgspec.Struct, frozen=True):
    """Of whom something is counted."""

    kind: Literal["key", "tenant"]
    name: str
    limits: Limits

    @property
    def rates(self) -> tuple[int | None, int | None]:
        """In the order of RATES."""
        return self.limits.requests_per_minute, self.limits.tokens_per_minute


class Charge(msgspec.Struct, frozen=True):
    """What was taken for one request."""

    subjects: tuple[Subject, ...]
    at_us: int
    owed: Sequence[Owed]
    """By each subject, with it."""


class Refusal(msgspec.Struct, frozen=True):
    subject: Subject
    limit: LimitName
    wait_us: int | None
    """None: for good."""


def subjects_of(account: Account) -> tuple[Subject, ...]:
    """Those that have any limits: the key, then the tenant."""
    key = Subject("key", account.key_id, account.of_key)
    tenant = Subject("tenant", account.tenant, account.of_tenant)
    return tuple(each for each in (key, tenant) if each.limits != UNLIMITED)


def drained(owed: int, limit: int | None, elapsed_us: int, workers: int = 1) -> int:
    """What is still owed after `elapsed_us`; never more than a minute's worth, should the limit have been lowered."""
    if limit is None:
        return 0
    most = limit * MINUTE_US * workers
    return max(0, min(owed, most) - limit * elapsed_us)


def wait_us(owed: int, limit: int | None, cost: int, workers: int = 1) -> int | None:
    """0: it may be had now. None: it is more than a minute gives.

    What is larger than a burst is had when nothing is owed.
    """
    if limit is None or cost == 0:
        return 0
    if cost > limit:
        return None
    excess = owed + cost * MINUTE_US * workers - limit * BURST_US
    if owed == 0 or excess <= 0:
        return 0
    return -(-min(owed, excess) // limit)


def returned(back: int, owed: int, limit: int, elapsed_us: int, workers: int = 1) -> int:
    """Units that are given back of a charge of `elapsed_us` ago, which made it `owed` in all; `back`: requests or tokens.

    What time has taken away since then is not given back again: who holds a large share for long does not save it up.
    """
    units = back * MINUTE_US * workers
    return min(units, max(0, owed - limit * elapsed_us)) if units > 0 else units


def longer(found: Refusal | None, other: Refusal) -> Refusal:
    """The one that is told: for good before any wait, then the longest, then the first."""
    if found is None or (found.wait_us is not None and (other.wait_us is None or other.wait_us > found.wait_us)):
        return other
    return found


def decide(
    subjects: Sequence[Subject],
    owed: Sequence[Owed],
    held: Sequence[int],
    tokens: int,
    *,
    lease: bool,
    workers: int = 1,
) -> Refusal | None:
    """`held`: generations under way. None: all of it may be had."""
    refusal = None
    for subject, now, running in zip(subjects, owed, held, strict=True):
        waits = [
            wait_us(units, limit, cost, workers)
            for units, limit, cost in zip(now, subject.rates, (1, tokens), strict=True)
        ]
        waits.append(place_us(subject.limits.concurrency, running, workers) if lease else 0)
        for name, wait in zip(NAMES, waits, strict=True):
            if wait != 0:
                refusal = longer(refusal, Refusal(subject, name, wait))
    return refusal


def place_us(limit: int | None, running: int, workers: int = 1) -> int | None:
    """As wait_us."""
    if limit == 0:
        return None
    return 0 if limit is None or running < max(1, limit // workers) else CONCURRENCY_RETRY_US


def refused(refusal: Refusal, owed: Owed, tokens: int, standing: Standing, workers: int = 1) -> RateLimited:
    """In OpenAI's words. `owed`: by the refusal's subject."""
    subject, name = refusal.subject, refusal.limit
    whose = f"{WORDS[name]} of {OWNERS[subject.kind]}"
    which = NAMES.index(name)
    limit = (*subject.rates, subject.limits.concurrency)[which]
    asked = tokens if name == "tokens" else 1
    if refusal.wait_us is None:
        text = f"Request too large for {whose}: Limit {limit}, Requested {asked}."
        return RateLimited(text, name, retry_after_s=None, standing=standing)
    used = "" if name == "concurrency" else f"Used {-(-owed[which] // (MINUTE_US * workers))}, "
    wait_s = refusal.wait_us / 1e6
    shown = f"{math.ceil(wait_s * 1e3) / 1e3:g}s"
    text = f"Rate limit reached for {whose}: Limit {limit}, {used}Requested {asked}. Please try again in {shown}."
    return RateLimited(text, name, retry_after_s=wait_s, standing=standing)


def allowance(owed: int, limit: int, workers: int = 1) -> Allowance:
    remaining = max(0, limit * BURST_US - owed) // (MINUTE_US * workers)
    if owed == 0 and limit > 0:
        remaining = max(1, remaining)
    return Allowance(limit, remaining, -(-owed // limit) / 1e6 if limit else 0.0)


def standing_of(subjects: Sequence[Subject], owed: Sequence[Owed], workers: int = 1) -> Standing:
    """Of the key and the tenant, the one that has less left."""
    requests, tokens = (
        [
            allowance(now[which], limit, workers)
            for subject, now in zip(subjects, owed, strict=True)
            if (limit := subject.rates[which]) is not None
        ]
        for which in range(len(RATES))
    )
    return Standing(requests=tighter(requests), tokens=tighter(tokens))


def tighter(allowances: Sequence[Allowance]) -> Allowance | None:
    return min(allowances, key=lambda each: (each.remaining, -each.reset_s), default=None)
