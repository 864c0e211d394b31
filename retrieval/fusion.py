"""Two rankings as one. Pure.

Reciprocal rank fusion: Cormack, Clarke, Büttcher, SIGIR 2009. Ranks are comparable where scores are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

RANK_CONSTANT = 12
"""The smaller, the more the first ranks count. From 10 to 20 Cranfield has .430 to .431 (nDCG@10), at the paper's 60 .429,
at 5 .428; XQuAD hardly notices (`python -m perf retrieval --quality`)."""


def fuse(rankings: Sequence[tuple[float, Sequence[int]]], rank_constant: int = RANK_CONSTANT) -> list[int]:
    """Each ranking with its weight, best first. All that is in one of them, best first; equals by their number."""
    scores: defaultdict[int, float] = defaultdict(float)
    for weight, ranking in rankings:
        for rank, seq in enumerate(ranking, 1):
            scores[seq] += weight / (rank_constant + rank)
    return sorted(scores, key=lambda seq: (-scores[seq], seq))
