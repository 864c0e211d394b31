"""How many slots each tenant held lately: a mean over time in which what is long ago counts ever less."""

from __future__ import annotations

import math
from collections.abc import Iterator

ANSWERS_REMEMBERED = 4.0
"""What is so many answers ago counts a third (1/e) of what is now."""


class Mean:
    def __init__(self, now: float) -> None:
        self.slots = 0.0
        """On average, until `at`."""
        self.held = 0
        """Since `at`."""
        self.at = now

    def until(self, now: float, answer_s: float) -> float:
        return self.held + (self.slots - self.held) * math.exp((self.at - now) / (ANSWERS_REMEMBERED * answer_s))


class Lately:
    """Times are seconds of one clock. `answer_s`: as long as a slot is held."""

    def __init__(self) -> None:
        self._means: dict[str, Mean] = {}

    def hold(self, tenant: str, held: int, now: float, answer_s: float) -> None:
        """From now on it holds so many."""
        mean = self._means.get(tenant)
        if mean is None:
            mean = self._means[tenant] = Mean(now)
        mean.slots, mean.held, mean.at = mean.until(now, answer_s), held, now

    def means(self, now: float, answer_s: float) -> Iterator[tuple[str, float]]:
        """Of the tenants that held any; who has held none for as long as an answer takes is forgotten: it may have gone."""
        for tenant, mean in list(self._means.items()):
            if mean.held or now - mean.at <= answer_s:
                yield tenant, mean.until(now, answer_s)
            else:
                del self._means[tenant]
