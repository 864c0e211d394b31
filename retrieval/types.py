"""What goes into an index and what comes out of it. Knows no library of vectors, no database and no service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Range = tuple[int, int]
"""First and last sequence number, both included."""


class Gap(Exception):
    """An index is not where its caller took it to be: it was evicted, or somebody else has brought it forward. Look again."""


class StoreKey(msgspec.Struct, frozen=True):
    """One index: a store in one of its generations."""

    tenant: str
    store_id: str
    generation: int = 0


class Chunk(msgspec.Struct, frozen=True):
    """A piece of text that can be found."""

    seq: int
    """Its place in the store's log, from 1 on, never used twice."""
    text: str
    vectors: NDArray[np.float16]
    """(windows, dim) float16, L2-normalised: one for each window of the text that the embedding model has read."""


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What a store's log holds behind `after`, up to `upto`: removals first, then what was added and is still there."""

    after: int
    upto: int
    removed: Sequence[Range] = ()
    added: Sequence[Chunk] = ()


class Query(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    vector: NDArray[np.float32]
    """(dim,) float32, L2-normalised."""
    vector_weight: float = 1.0
    text_weight: float = 1.0
    """Of the two rankings, in their fusion (RRF); 0: without it."""


class Hit(msgspec.Struct, frozen=True):
    seq: int
    score: float
    """Cosine of the query and the chunk's best window, clamped to 0 to 1. Hits are ordered by the fused rank, not by it."""


class Index(Protocol):
    """A projection of one store. Blocking; one thread at a time."""

    @property
    def applied(self) -> int:
        """Up to here it holds the log; 0: nothing."""

    @property
    def size_bytes(self) -> int: ...

    def apply(self, delta: Delta) -> None:
        """Brings it from `delta.after` to `delta.upto`. What it has is passed over. Raises Gap if it is behind `after`."""

    def search(self, query: Query, k: int, allowed: Sequence[Range] | None = None) -> list[Hit]:
        """The best k, best first. `allowed`: only these sequence numbers, in ascending order without overlap; None: all."""
