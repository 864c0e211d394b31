"""The search for the highest rate that a system serves, in few probes: each costs half a minute of the machine."""

from __future__ import annotations

from math import ceil

from perf import open_loop

MOST_S = 2.0
"""The p95 up to which a rate counts as served."""
LEAST_PER_S, MOST_PER_S = 1, 100
MOST_PROBES = 6
STEP = 0.25
"""Of the rate that was served: how much more to try where nothing else is known."""
SATURATED = 0.9
"""Of what a system does of too much: about what it serves in time."""
HARDLY = 1.1
"""Of the same: more than it can serve; runs are too short to say that of less."""


class Search:
    """Among whole rates. What is measured anyway is learnt first, and counts as a probe."""

    def __init__(self, before: int | None = None) -> None:
        """`before`: found in another round; it is tried first, and then its neighbours, with steps that grow."""
        self.probes: list[tuple[int, float]] = []
        """Rates, and the p95 at each, in seconds."""
        self._served, self._failed = LEAST_PER_S - 1, MOST_PER_S + 1
        self._saturated = float("inf")
        """The least that was done of too much, per second."""
        self._before = before
        self._step = 1 if before else 0

    @property
    def capacity_per_s(self) -> int:
        """The highest rate that was served; 0: none."""
        return self._served

    def learn(self, per_s: int, run: open_loop.Run) -> None:
        p95_s = run.total_s(0.95)
        self.probes.append((per_s, p95_s))
        if p95_s <= MOST_S:
            self._served = max(self._served, per_s)
        else:
            self._failed = min(self._failed, per_s)
            self._saturated = min(self._saturated, run.served_per_s)

    def next(self) -> int | None:
        """The rate to try; None: the capacity is known, or it were enough probes."""
        if self._failed - self._served <= 1 or len(self.probes) >= MOST_PROBES:
            return None
        return max(self._served + 1, min(self._failed - 1, self._guess()))

    def _guess(self) -> int:
        if self._before is not None:
            before, self._before = self._before, None
            if self._served < before < self._failed:
                return before
        step, self._step = self._step, 2 * self._step
        if self._failed > MOST_PER_S:
            return self._served + (step or int(STEP * self._served))
        if self._served < LEAST_PER_S:
            return int(SATURATED * self._saturated)
        middle = (self._served + min(self._failed, ceil(HARDLY * self._saturated))) // 2
        if not step:
            return middle
        return (
            min(middle, self._served + step) if self.probes[-1][0] == self._served else max(middle, self._failed - step)
        )
