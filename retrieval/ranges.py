"""Ranges of sequence numbers, both ends included, in ascending order without overlap: what of a sorted column lies in them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Range


def places(seqs: NDArray[np.int64], ranges: Sequence[Range]) -> NDArray[np.int64]:
    """(ranges, 2): of each range, the first place in `seqs` (sorted) that is in it, and the one behind the last."""
    bounds = np.asarray(ranges, np.int64).reshape(-1, 2)
    return np.stack([seqs.searchsorted(bounds[:, 0], "left"), seqs.searchsorted(bounds[:, 1], "right")], axis=1)


def mask(seqs: NDArray[np.int64], ranges: Sequence[Range]) -> NDArray[np.bool_]:
    """Which of `seqs` (sorted) are in a range. The ranges may overlap."""
    steps = np.zeros(seqs.size + 1, np.int64)
    found = places(seqs, ranges)
    np.add.at(steps, found[:, 0], 1)
    np.add.at(steps, found[:, 1], -1)
    return steps[:-1].cumsum() > 0


def span(ranges: Sequence[Range] | None) -> float:
    """How many numbers they have; infinite for None, which is all."""
    return math.inf if ranges is None else sum(last - first + 1 for first, last in ranges)


def holds(ranges: Sequence[Range], seq: int) -> bool:
    at = bisect_right(ranges, seq, key=lambda bounds: bounds[0])
    return at > 0 and seq <= ranges[at - 1][1]
