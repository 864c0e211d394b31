"""The index of one store: likeness and words, each a ranking, and their fusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.fulltext import FullText
from retrieval.fusion import fuse
from retrieval.types import Delta, Gap, Hit, Query, Range
from retrieval.vectors import EXACT_ROWS, Vectors

CANDIDATES = 100
"""Of each ranking, at least."""
OWN_BYTES = 16_384
"""What an empty index weighs."""


class HybridIndex:
    """Implements retrieval.types.Index."""

    def __init__(self, exact_rows: int = EXACT_ROWS) -> None:
        """`exact_rows`: above so many vectors, dense search chooses among candidates."""
        self._vectors = Vectors(exact_rows)
        self._words = FullText()
        self._applied = 0

    @property
    def applied(self) -> int:
        return self._applied

    @property
    def size_bytes(self) -> int:
        return OWN_BYTES + self._vectors.size_bytes + self._words.size_bytes

    def apply(self, delta: Delta) -> None:
        if delta.after > self._applied:
            raise Gap
        if delta.upto <= self._applied:
            return
        added = sorted((chunk for chunk in delta.added if chunk.seq > self._applied), key=lambda chunk: chunk.seq)
        self._vectors.apply(delta.removed, added)
        self._words.apply(delta.removed, added)
        self._applied = delta.upto

    def search(self, query: Query, k: int, allowed: Sequence[Range] | None = None) -> list[Hit]:
        if k < 1 or (allowed is not None and not allowed):
            return []
        rankings: list[tuple[float, Sequence[int]]] = []
        if query.vector_weight > 0:
            alike, _ = self._vectors.best(query.vector, max(k, CANDIDATES), allowed)
            rankings.append((query.vector_weight, alike.tolist()))
        if query.text_weight > 0:
            rankings.append((query.text_weight, self._words.best(query.text, max(k, CANDIDATES), allowed)))
        return self._hits(query.vector, fuse(rankings)[:k])

    def _hits(self, vector: NDArray[np.float32], seqs: Sequence[int]) -> list[Hit]:
        scores = np.clip(self._vectors.scores(vector, np.array(seqs, np.int64)), 0, 1)
        return [Hit(seq, score) for seq, score in zip(seqs, scores.tolist(), strict=True)]
