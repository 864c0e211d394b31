"""An embedder without a model to whom texts are as alike as the words that they share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.fakes.embedder import FakeEmbedder, vector

CONTROL = (101, 102)
"""[CLS] and [SEP], around every text."""


class WordsEmbedder(FakeEmbedder):
    async def embed(self, batch: Sequence[Sequence[int]], *, urgent: bool) -> NDArray[np.float32]:
        await super().embed(batch, urgent=urgent)
        return np.stack([mean(row) for row in batch])


def mean(row: Sequence[int]) -> NDArray[np.float32]:
    words = [token for token in row if token not in CONTROL] or [0]
    total = np.sum([of_word(token) for token in words], axis=0)
    return np.asarray(total / np.linalg.norm(total), np.float32)


@cache
def of_word(token: int) -> NDArray[np.float32]:
    return vector([token])
