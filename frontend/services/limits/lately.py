"""How many slots each tenant held lately: a mean over time in which what is long ago counts ever less."""

from __future__ import annotations

import math
from collections.abc import Iterator

NEGLIGIBLE = 0.01
"""Slots."""


class Mean:
    def __init__(self, now: float) -> None:
        self.slots = 0.0
        """On average, until `at`."""
        self.held = 0
        """Since `at`."""
        self.at = now

    def until(self, now: float, memory_s: float) -> float:
        return self.held + (self.slots - self.held) * math.exp((self.at - now) / memory_s)


class Lately:
    """Times are seconds of one clock. `memory_s`: what is so long ago counts a third (1/e) of what is now."""

    def __init__(self) -> None:
        self._means: dict[str, Mean] = {}

    def hold(self, tenant: str, held: int, now: float, memory_s: float) -> None:
        """From now on it holds so many."""
        mean = self._means.get(tenant)
        if mean is None:
            mean = self._means[tenant] = Mean(now)
        mean.slots, mean.held, mean.at = mean.until(now, memory_s), held, now

    def means(self, now: float, memory_s: float) -> Iterator[tuple[str, float]]:
        """Of the tenants that held any; those that did long ago are forgotten."""
        for tenant, mean in list(self._means.items()):
            slots = mean.until(now, memory_s)
            if slots < NEGLIGIBLE and not mean.held and now > mean.at:
                del self._means[tenant]
            else:
                yield tenant, slots
