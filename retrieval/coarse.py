"""Candidates among very many vectors: those of the cells that are nearest to the query, 8 bits a number. FAISS, one thread.

What is near is decided by others, on the vectors as they came.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval import selection
from retrieval.exact import ExactVectors, Seqs
from retrieval.types import Range

CELLS = 512
PROBED = 96
"""Of the cells, for one query; `python -m perf retrieval --scale` measures what they miss."""
ROWS_PER_CELL = 40
"""That the cells are learned from: FAISS warns below 39."""
ROUNDS = 8
"""Of k-means."""


class CoarseVectors:
    def __init__(self, vectors: ExactVectors) -> None:
        """Learns cells from `vectors`, and holds all of them. Takes about 6 s for a million."""
        self.learned_from = vectors.rows
        cells = max(1, min(CELLS, vectors.rows // ROWS_PER_CELL))
        self._index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(vectors.dimensions),
            vectors.dimensions,
            cells,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        self._index.cp.niter = ROUNDS
        self._index.train(vectors.sample(cells * ROWS_PER_CELL, np.random.default_rng(0)))
        for seqs, rows in vectors.blocks():
            self._index.add_with_ids(rows, seqs)

    @property
    def size_bytes(self) -> int:
        cells: int = self._index.nlist
        dimensions: int = self._index.d
        rows: int = self._index.ntotal
        return rows * (dimensions + 8) + cells * 4 * dimensions

    def add(self, seqs: Seqs, vectors: NDArray[np.float16]) -> None:
        self._index.add_with_ids(vectors.astype(np.float32), seqs)

    def remove(self, seqs: Seqs) -> None:
        doomed = np.zeros(int(seqs.max()) + 1, np.bool_)
        doomed[seqs] = True
        self._index.remove_ids(selection.selector(doomed))

    def search(self, vector: NDArray[np.float32], most: int, allowed: Sequence[Range] | None) -> Seqs:
        """Numbers of the `most` nearest rows, or of fewer if the cells that were looked into have no more."""
        parameters = selection.in_cells(PROBED, None if allowed is None else _chosen(allowed))
        _, seqs = self._index.search(vector[None], most, params=parameters)
        found: Seqs = seqs[0][seqs[0] >= 0]
        return found


def _chosen(allowed: Sequence[Range]) -> NDArray[np.bool_]:
    chosen = np.zeros(allowed[-1][1] + 1, np.bool_)
    for first, last in allowed:
        chosen[first : last + 1] = True
    return chosen
