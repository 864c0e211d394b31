"""Counts and ratios that hold the speed, on everything that is real but the engine; see perf/ for the times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from frontend.domain.generation import GenerationRequest, Sampling
from frontend.triton import mailbox
from frontend.triton.engine import TritonEngine
from tests.support.stack import Stack

MANY = 64
MOST_PER_TOKEN, LEAST_PER_TOKEN = 0.05, 0.9
"""Messages of Triton's: of many streams (0.02 as it is, 0.06 if each has its own, 0.7 if nothing is held back), and of one."""


class CountingEngine(TritonEngine):
    messages = 0
    """Responses of Triton's, by mailbox and by each generation's own call."""
    mailboxes = 0
    """That were opened."""

    async def _call(self, message: Any, timeout_s: float | None) -> AsyncGenerator[dict[str, bytes], None]:
        self.mailboxes += timeout_s is None
        async with aclosing(super()._call(message, timeout_s)) as responses:
            async for raw in responses:
                self.messages += 1
                yield raw


@pytest.fixture
async def triton(scripted_stack: Stack) -> AsyncIterator[CountingEngine]:
    """Its streams give a token each 5 ms."""
    async with grpc.aio.insecure_channel(scripted_stack.grpc) as channel:
        yield CountingEngine(channel, request_timeout_s=60)


async def messages_per_token(triton: CountingEngine, streams: int, tokens: int, rounds: int = 1) -> float:
    """`rounds`: generations of each stream, one after the other."""
    sampling = Sampling(max_tokens=tokens, min_tokens=tokens, temperature=0)
    request = GenerationRequest(prompt_ids=[11, 42], sampling=sampling, stream=True, cache_salt="tests")

    async def one() -> list[int]:
        return [
            sum([choice.num_tokens async for delta in triton.generate(request) for choice in delta.choices])
            for _ in range(rounds)
        ]

    triton.messages = 0
    assert await asyncio.gather(*(one() for _ in range(streams))) == [[tokens] * rounds] * streams
    found = triton.messages / (streams * tokens * rounds)
    print(f"{streams} streams: {found:.3f} messages per token")
    return found


async def test_tokens_of_many_streams_travel_together(triton: CountingEngine) -> None:
    """A message costs stub, Triton and frontend ten times as much as a token in it does."""
    await messages_per_token(triton, MANY, 50)  # a mailbox is opened
    assert await messages_per_token(triton, MANY, 200) <= MOST_PER_TOKEN


async def test_no_mailbox_stays_open_for_ever(triton: CountingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton keeps what a call has brought until its end. One follows the other, and nothing is lost between them."""
    monkeypatch.setattr(mailbox, "MOST_LETTERS", 4)
    assert await messages_per_token(triton, MANY, 100, rounds=5) <= MOST_PER_TOKEN
    assert triton.mailboxes >= 3


async def test_one_stream_gets_each_token_at_once(triton: CountingEngine) -> None:
    """Nothing is held back for company that does not come."""
    assert await messages_per_token(triton, 1, 200) >= LEAST_PER_TOKEN
