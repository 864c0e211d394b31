"""Whether a figure grows: the slope of a series, and how sure it is. Knows nothing of what is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec

SURE = 1.96
"""Standard deviations to each side: 95 %."""
SMALL_SHARE = 0.005
"""Growth over the whole series that counts as none: of the series' median."""


class Trend(msgspec.Struct, frozen=True):
    """In units of the figure and of the time that it was asked with."""

    slope: float
    low: float
    high: float
    """The slope lies between `low` and `high` with 95 %."""
    duration: float
    level: float
    """The median of all values."""

    @property
    def growth(self) -> float:
        """Over the whole series, by the slope."""
        return self.slope * self.duration

    @property
    def rises(self) -> bool:
        """Its interval lies above zero, however little."""
        return self.low > 0

    @property
    def grows(self) -> bool:
        """It rises, and by more than a small share."""
        return self.rises and self.growth > SMALL_SHARE * self.level


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Theil and Sen's slope, which a peak does not bend, with Sen's interval. Raises ValueError for fewer than three values.

    The interval takes values for independent. Neighbours in time are alike, so that it is narrower than it should be: it says
    'grows' too early rather than too late, and a step may look like a slope.
    """
    count = len(values)
    if count < 3:
        raise ValueError(f"{count} values have no slope")
    slopes = sorted(
        (values[later] - values[earlier]) / (times[later] - times[earlier])
        for earlier in range(count)
        for later in range(earlier + 1, count)
    )
    apart = SURE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    first = max(0, math.floor((len(slopes) - apart) / 2))
    last = min(len(slopes) - 1, math.ceil((len(slopes) + apart) / 2))
    return Trend(median(slopes), slopes[first], slopes[last], times[-1] - times[0], median(values))
