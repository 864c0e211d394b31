"""What an index should say, said by a dict and numpy: the log of one store, and searches that look at everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Chunk, Delta, Range

DIMENSIONS = 8


def unit_vectors(chance: np.random.Generator, count: int, dimensions: int = DIMENSIONS) -> NDArray[np.float16]:
    """(count, dimensions) float16, L2-normalised."""
    rows = chance.standard_normal((count, dimensions))
    scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(np.float16)


class Log:
    """A store as SQL has it: its chunks that are there, and where its removals stand."""

    def __init__(self) -> None:
        self.head = 0
        self.chunks: dict[int, Chunk] = {}
        self.removals: list[tuple[int, Range]] = []

    def add(self, contents: Sequence[tuple[str, NDArray[np.float16]]]) -> None:
        for text, vectors in contents:
            self.head += 1
            self.chunks[self.head] = Chunk(self.head, text, vectors)

    def remove(self, first: int, last: int) -> None:
        self.head += 1
        self.removals.append((self.head, (first, last)))
        for seq in [seq for seq in self.chunks if first <= seq <= last]:
            del self.chunks[seq]

    def delta(self, after: int, upto: int | None = None) -> Delta:
        upto = self.head if upto is None else upto
        removed = [bounds for seq, bounds in self.removals if after < seq <= upto]
        added = [chunk for seq, chunk in self.chunks.items() if after < seq <= upto]
        return Delta(after=after, upto=upto, removed=removed, added=added)


def best(
    chunks: dict[int, Chunk], vector: NDArray[np.float32], allowed: Sequence[Range] | None
) -> list[tuple[float, int]]:
    """Score and number of every chunk that has a vector and may be found, the best first."""
    scored = [
        (float((chunk.vectors.astype(np.float32) @ vector).max()), seq)
        for seq, chunk in chunks.items()
        if len(chunk.vectors) and permitted(seq, allowed)
    ]
    return sorted(scored, key=lambda pair: (-pair[0], pair[1]))


def with_word(chunks: dict[int, Chunk], word: str, allowed: Sequence[Range] | None) -> set[int]:
    return {seq for seq, chunk in chunks.items() if word in chunk.text.split() and permitted(seq, allowed)}


def permitted(seq: int, allowed: Sequence[Range] | None) -> bool:
    return allowed is None or any(first <= seq <= last for first, last in allowed)
