"""The vectors of one store: a chunk is as like a query as its best window. Exact, or exact among candidates."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.coarse import CoarseVectors
from retrieval.exact import ExactVectors, Scores, Seqs
from retrieval.types import Chunk, Range

EXACT_ROWS = 200_000
"""So many are all looked at (5 ms at 200,000); of more, only candidates, unless a filter leaves few."""
FILTERED_ROWS = 100_000
"""A filter that leaves at most so many is searched exactly: candidates would be too few to choose from."""
GROWTH = 8
"""The cells are learned anew when there are so many times the rows that they were learned from."""
ROWS_PER_CHUNK = 4
"""That a search expects; it looks again where the best rows belong to too few chunks."""
LEAST_CANDIDATES = 100


class Vectors:
    """Blocking; for one thread at a time, which does all of the work itself."""

    def __init__(self, exact_rows: int = EXACT_ROWS) -> None:
        self._exact_rows = exact_rows
        self._exact: ExactVectors | None = None
        """None until a first vector says how many dimensions they have."""
        self._coarse: CoarseVectors | None = None

    @property
    def rows(self) -> int:
        return self._exact.rows if self._exact else 0

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in (self._exact, self._coarse) if each is not None)

    def apply(self, removed: Sequence[Range], added: Sequence[Chunk]) -> None:
        """`added`: in the order of their numbers, which are above all that were ever here. Raises ValueError for vectors of
        another length than those that are here, and changes nothing then."""
        seqs, rows = _rows(added)
        if rows is not None and self._exact is None:
            self._exact = ExactVectors(rows.shape[1])
        if self._exact is None:
            return
        if rows is not None and rows.shape[1] != self._exact.dimensions:
            raise ValueError(f"vectors of {rows.shape[1]} numbers among those of {self._exact.dimensions}")
        _one_thread()
        gone = self._exact.remove(removed) if removed else np.empty(0, np.int64)
        if self._coarse is not None and gone.size:
            self._coarse.remove(gone)
        if rows is not None:
            self._exact.add(seqs, rows)
            if self._coarse is not None:
                self._coarse.add(seqs, rows)
        self._choose(self._exact)

    def best(self, vector: NDArray[np.float32], k: int, allowed: Sequence[Range] | None) -> tuple[Seqs, Scores]:
        """Of the k best chunks, or of all if there are fewer, best first: numbers and inner products."""
        if self._exact is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        _one_thread()
        if self._coarse is not None and (allowed is None or self._exact.count(allowed) > FILTERED_ROWS):
            seqs = np.unique(self._coarse.search(vector, max(LEAST_CANDIDATES, ROWS_PER_CHUNK * k), allowed))
            if seqs.size >= k:
                scores = self._exact.scores(vector, seqs)
                order = np.lexsort((seqs, -scores))[:k]
                return seqs[order], scores[order]
        return self._best_exactly(self._exact, vector, k, allowed)

    def scores(self, vector: NDArray[np.float32], seqs: Seqs) -> Scores:
        """Of each chunk; -inf for one that has no vector."""
        if self._exact is None:
            return np.full(seqs.size, -np.inf, np.float32)
        _one_thread()
        return self._exact.scores(vector, seqs)

    def _best_exactly(
        self, exact: ExactVectors, vector: NDArray[np.float32], k: int, allowed: Sequence[Range] | None
    ) -> tuple[Seqs, Scores]:
        most = ROWS_PER_CHUNK * k
        while True:
            seqs, scores = exact.search(vector, most, allowed)
            _, first = np.unique(seqs, return_index=True)
            if first.size >= k or seqs.size < most:
                chosen = np.sort(first)[:k]
                return seqs[chosen], scores[chosen]
            most *= 4

    def _choose(self, exact: ExactVectors) -> None:
        if exact.rows <= self._exact_rows // 2:  # not at the bound itself, around which a store may go to and fro
            self._coarse = None
        elif exact.rows > (GROWTH * self._coarse.learned_from if self._coarse else self._exact_rows):
            self._coarse = None  # before the new one is made: there is room for one
            self._coarse = CoarseVectors(exact)


def _rows(chunks: Sequence[Chunk]) -> tuple[Seqs, NDArray[np.float16] | None]:
    """All windows of all chunks. None: there are none."""
    some = [chunk for chunk in chunks if len(chunk.vectors)]
    if not some:
        return np.empty(0, np.int64), None
    seqs = np.repeat(np.array([c.seq for c in some], np.int64), [len(c.vectors) for c in some])
    return seqs, np.concatenate([c.vectors for c in some])


def _one_thread() -> None:
    """Each search has one core: throughput is that of the threads that search. OpenMP keeps the number for each thread
    apart, so it is set by whichever works here."""
    faiss.omp_set_num_threads(1)
