"""Counts and ratios that hold the speed, on everything that is real but the engine; see perf/ for the times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from frontend.domain.generation import GenerationRequest, Sampling
from frontend.triton.engine import TritonEngine, open_engine
from tests.support.stack import Stack

MANY = 64
MOST_PER_TOKEN, LEAST_PER_TOKEN = 0.25, 0.9
"""Messages of Triton's: of many streams (0.06 as it is, 0.7 if nothing is held back: a sender that cannot keep up gathers,
too), and of one alone."""


@pytest.fixture
async def triton(scripted_stack: Stack) -> AsyncIterator[TritonEngine]:
    """Its streams give a token each 5 ms."""
    async with open_engine(scripted_stack.grpc, request_timeout_s=60) as engine:
        yield engine


async def messages_per_token(triton: TritonEngine, streams: int, tokens: int) -> float:
    sampling = Sampling(max_tokens=tokens, min_tokens=tokens, temperature=0)
    request = GenerationRequest(prompt_ids=[11, 42], sampling=sampling, stream=True, cache_salt="tests")

    async def one() -> tuple[int, int]:
        """Messages, and tokens."""
        came = [sum(choice.num_tokens for choice in delta.choices) async for delta in triton.generate(request)]
        return len(came), sum(came)

    found = await asyncio.gather(*(one() for _ in range(streams)))
    messages, said = sum(each for each, _ in found), sum(each for _, each in found)
    assert said == streams * tokens
    print(f"{streams} streams: {messages / said:.3f} messages per token")
    return messages / said


async def test_tokens_of_many_streams_travel_together(triton: TritonEngine) -> None:
    """A message costs stub, Triton and frontend ten times as much as a token in it does."""
    assert await messages_per_token(triton, MANY, 200) <= MOST_PER_TOKEN


async def test_one_stream_gets_each_token_at_once(triton: TritonEngine) -> None:
    """Nothing is held back for company that does not come."""
    assert await messages_per_token(triton, 1, 200) >= LEAST_PER_TOKEN
