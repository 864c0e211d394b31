"""An embedder port without a model. Passes the same contract as the real adapter (tests/contract)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frontend.domain.errors import InvalidRequest, ServiceError

DIMENSIONS, MAX_TOKENS, VOCABULARY = 384, 256, 30522


class FakeEmbedder:
    """A random vector for each row, always the same for the same ids. Raises `error`, if given; waits for `hold` first."""

    def __init__(self, *, error: ServiceError | None = None, hold: asyncio.Event | None = None) -> None:
        self.batches: list[list[list[int]]] = []
        self.urgent: list[bool] = []
        self.running = 0
        self.most_running = 0
        self._error = error
        self._hold = hold

    async def embed(self, batch: Sequence[Sequence[int]], *, urgent: bool) -> NDArray[np.float32]:
        self.batches.append([list(row) for row in batch])
        self.urgent.append(urgent)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await (self._hold.wait() if self._hold else asyncio.sleep(0))
            if self._error is not None:
                raise self._error
            return np.stack([vector(row) for row in batch])
        finally:
            self.running -= 1


def vector(row: Sequence[int]) -> NDArray[np.float32]:
    """(384,) float32, L2-normalised."""
    if len(row) > MAX_TOKENS or not all(0 <= token < VOCABULARY for token in row):
        raise InvalidRequest("too long, or not a token", param="input")
    values = np.random.default_rng(list(row)).standard_normal(DIMENSIONS)
    return np.asarray(values / np.linalg.norm(values), np.float32)
