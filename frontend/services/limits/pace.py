"""How fast requests are given to the engine while slots are free: a few prompts at a time, and under overload one by one."""

from __future__ import annotations

import math

SLOTS_PER_READ_ONE = 8
"""Of so many slots one may wait for its first token before the next is let in: the engine reads all prompts that it has in one
step, and whoever comes meanwhile waits for all of them."""
LEAST_READ = 2
"""At a time, of however few slots: one by one, the last of eight that came together would wait for longer than is allowed."""
LONGEST_READ_S = 1.0
"""After that nobody waits for it any more: a prompt may be very long, and the engine reads others beside it."""
APART = 0.5
"""Of the time between two slots' becoming free, on average: while requests are refused, no two are let in within less. Answers of
equal length that began together would end together, time and again, and be waited for together."""


class Pace:
    """Times are seconds of one clock."""

    def __init__(self, slots: int, slots_per_read_one: int = SLOTS_PER_READ_ONE) -> None:
        self._slots = slots
        self._most_read = max(LEAST_READ, slots // slots_per_read_one)
        self._read: dict[object, float] = {}
        """Places whose prompts are being read, and since when; the oldest first."""
        self._let_in_at = self._refused_at = -math.inf

    def let_in(self, place: object, now: float) -> None:
        self._read[place] = self._let_in_at = now

    def has_read(self, place: object) -> None:
        """It has a token, or has ended."""
        self._read.pop(place, None)

    def refused(self, now: float) -> None:
        self._refused_at = now

    def apart_s(self, now: float, answer_s: float) -> float:
        """Between two that are let in: 0, unless somebody was refused within `answer_s`, as long as a slot is held."""
        return APART * answer_s / self._slots if now < self._refused_at + answer_s else 0.0

    def next_at(self, now: float, answer_s: float) -> float:
        """When the next may be let in, unless something happens before."""
        begun = [since for since in self._read.values() if since + LONGEST_READ_S > now]
        apart = self._let_in_at + self.apart_s(now, answer_s)
        return max(apart, begun[-self._most_read] + LONGEST_READ_S) if len(begun) >= self._most_read else apart
