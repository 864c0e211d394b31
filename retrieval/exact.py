"""Vectors as they came, float16, searched one and all: nothing is approximated, with or without a filter. FAISS, one thread.

In segments: a removal moves the rows of those segments only that it concerns, and growing copies the last one only.
Rows are in the order of their sequence numbers; one number has as many rows as its chunk has windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval import ranges, selection
from retrieval.types import Range

SEGMENT_ROWS = 65_536

Seqs = NDArray[np.int64]
Scores = NDArray[np.float32]


class ExactVectors:
    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._segments: list[_Segment] = []

    @property
    def rows(self) -> int:
        return sum(segment.seqs.size for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        return self.rows * (2 * self.dimensions + 8)

    def add(self, seqs: Seqs, vectors: NDArray[np.float16]) -> None:
        """`seqs`: ascending, above all that were added before; one for each row of `vectors`, which may repeat."""
        at = 0
        while at < seqs.size:
            if not self._segments or self._segments[-1].seqs.size >= SEGMENT_ROWS:
                self._segments.append(_Segment(self.dimensions))
            end = at + SEGMENT_ROWS - self._segments[-1].seqs.size
            self._segments[-1].add(seqs[at:end], vectors[at:end])
            at = end

    def remove(self, removed: Sequence[Range]) -> Seqs:
        """The numbers that were there, one for each row."""
        gone = [segment.remove(removed) for segment in self._segments]
        self._segments = [segment for segment in self._segments if segment.seqs.size]
        return np.concatenate([*gone, np.empty(0, np.int64)])

    def count(self, allowed: Sequence[Range]) -> int:
        """Rows in these ranges."""
        return sum(int(np.diff(ranges.places(s.seqs, allowed)).sum()) for s in self._segments)

    def search(self, vector: NDArray[np.float32], most: int, allowed: Sequence[Range] | None) -> tuple[Seqs, Scores]:
        """The `most` best rows, best first: their numbers and inner products."""
        found = [segment.search(vector, most, allowed) for segment in self._segments]
        seqs = np.concatenate([np.empty(0, np.int64), *(each[0] for each in found)])
        scores = np.concatenate([np.empty(0, np.float32), *(each[1] for each in found)])
        order = np.lexsort((seqs, -scores))[:most]
        return seqs[order], scores[order]

    def scores(self, vector: NDArray[np.float32], seqs: Seqs) -> Scores:
        """The best row's inner product of each of `seqs`; -inf for one that has no rows."""
        best = np.full(seqs.size, -np.inf, np.float32)
        for segment in self._segments:
            segment.raise_to_best(best, vector, seqs)
        return best

    def blocks(self) -> Iterator[tuple[Seqs, NDArray[np.float32]]]:
        """All rows, in order, a segment at a time."""
        for segment in self._segments:
            yield segment.seqs, segment.all()

    def sample(self, rows: int, chance: np.random.Generator) -> NDArray[np.float32]:
        """(about `rows`, dim): of all segments alike."""
        share = rows / max(1, self.rows)
        return np.concatenate([segment.some(share, chance) for segment in self._segments])


class _Segment:
    def __init__(self, dimensions: int) -> None:
        self.seqs: Seqs = np.empty(0, np.int64)
        self._index = faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

    def add(self, seqs: Seqs, vectors: NDArray[np.float16]) -> None:
        codes = np.ascontiguousarray(vectors, np.float16).view(np.uint8).reshape(seqs.size, -1)
        self._index.add_sa_codes(codes)  # their code of float16 is float16
        self.seqs = np.concatenate([self.seqs, seqs])

    def remove(self, removed: Sequence[Range]) -> Seqs:
        doomed = ranges.mask(self.seqs, removed)
        gone = self.seqs[doomed]
        if gone.size:
            self._index.remove_ids(selection.selector(doomed))
            self.seqs = self.seqs[~doomed]
        return gone

    def search(self, vector: NDArray[np.float32], most: int, allowed: Sequence[Range] | None) -> tuple[Seqs, Scores]:
        parameters = None
        if allowed is not None:
            chosen = ranges.mask(self.seqs, allowed)
            if not chosen.any():
                return np.empty(0, np.int64), np.empty(0, np.float32)
            parameters = selection.exactly(chosen)
        scores, rows = self._index.search(vector[None], min(most, self.seqs.size), params=parameters)
        there = rows[0] >= 0
        return self.seqs[rows[0][there]], scores[0][there]

    def raise_to_best(self, best: Scores, vector: NDArray[np.float32], seqs: Seqs) -> None:
        first, behind = self.seqs.searchsorted(seqs, "left"), self.seqs.searchsorted(seqs, "right")
        counts = behind - first
        if not (total := int(counts.sum())):
            return
        owner = np.repeat(np.arange(seqs.size), counts)
        rows = np.arange(total) - np.repeat(counts.cumsum() - counts, counts) + np.repeat(first, counts)
        np.maximum.at(best, owner, self._index.reconstruct_batch(rows) @ vector)

    def all(self) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._index.reconstruct_n(0, self.seqs.size)
        return rows

    def some(self, share: float, chance: np.random.Generator) -> NDArray[np.float32]:
        wanted = min(self.seqs.size, round(share * self.seqs.size))
        rows: NDArray[np.float32] = self._index.reconstruct_batch(chance.choice(self.seqs.size, wanted, replace=False))
        return rows
