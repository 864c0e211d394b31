"""One contract for every embedder port: the fake of the tests, and the adapter to Triton."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from frontend.domain.errors import InvalidRequest, Unavailable
from frontend.domain.ports import Embedder
from frontend.triton.embedder import open_embedder
from perf.service import free_ports
from tests.fakes.embedder import FakeEmbedder

SHORT, MIDDLE = [101, 7592, 102], [101, 1996, 4248, 2829, 4419, 102]
LONG = [101, *[2829] * 254, 102]


@pytest.fixture(params=["fake", pytest.param("triton", marks=pytest.mark.real)])
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    if request.param == "fake":
        yield FakeEmbedder()
        return
    async with open_embedder(request.getfixturevalue("stack").grpc, timeout_s=30) as adapter:
        yield adapter


async def test_one_vector_for_each_text(embedder: Embedder) -> None:
    """(n, 384) float32 of length one, in the order of the texts, whatever their lengths."""
    vectors = await embedder.embed([LONG, SHORT, MIDDLE], urgent=True)
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = [(await embedder.embed([row], urgent=True))[0] for row in (LONG, SHORT, MIDDLE)]
    assert np.allclose(vectors, alone, atol=1e-5)


async def test_requests_do_not_mix(embedder: Embedder) -> None:
    """Forty at once, of three lengths: each gets its own vectors, though they share batches."""
    rows = [SHORT, MIDDLE, [101, *[2829] * 40, 102]]
    alone = [(await embedder.embed([row], urgent=True))[0] for row in rows]
    together = await asyncio.gather(*(embedder.embed([rows[number % 3]], urgent=True) for number in range(40)))
    for number, vectors in enumerate(together):
        assert np.allclose(vectors[0], alone[number % 3], atol=1e-5)


@pytest.mark.parametrize("row", [[101, *[2829] * 255, 102], [101, 30522, 102], [101, -1, 102]])
async def test_a_wrong_text_is_invalid(embedder: Embedder, row: list[int]) -> None:
    """Longer than the model reads, or no token of it: the caller's error, and nothing is cut."""
    with pytest.raises(InvalidRequest):
        await embedder.embed([SHORT, row], urgent=True)
    assert (await embedder.embed([SHORT], urgent=True)).shape == (1, 384)


async def test_an_absent_embedder_is_unavailable() -> None:
    """Nobody listening: Unavailable at once, with a time to come back, not a transport's error."""
    async with open_embedder(f"127.0.0.1:{free_ports(1)[0]}", timeout_s=5) as adapter:
        with pytest.raises(Unavailable) as caught:
            await adapter.embed([SHORT], urgent=True)
    assert caught.value.retry_after_s > 0
