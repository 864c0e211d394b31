"""Many clients at once: all are served, and those that leave cost nothing any more."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from tests.support.app import HEADERS
from tests.support.stack import API_KEY, Stack

CLIENTS = 50
SLOTS = 60
"""That one tenant has of the 64 sequences which the engine decodes together."""
MAX_WAITING = 8
RUNNING = re.compile(
    r"^(vllm:num_requests_running|vllm:num_requests_waiting|hermes2_engine_requests|hermes2_admission_waiting)(?:\{.*\})? (\S+)$",
    re.MULTILINE,
)


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=stack.url, headers=HEADERS, timeout=300, limits=limits) as client:
        yield client


def question(number: int, **more: object) -> dict[str, object]:
    return {
        "model": "hermes-2",
        "messages": [{"role": "user", "content": f"Count slowly from {number} upwards."}],
    } | more


async def in_engine(http: httpx.AsyncClient) -> dict[str, float]:
    text = (await http.get("/metrics")).text
    return {name: float(value) for name, value in RUNNING.findall(text)}


async def until_idle(http: httpx.AsyncClient) -> float:
    """Seconds until neither vLLM, nor our own backend, nor the queue before them knows of a request."""
    started = time.monotonic()
    while True:
        counts = await in_engine(http)
        assert len(counts) == 4
        if not any(counts.values()):
            return time.monotonic() - started
        assert time.monotonic() - started < 2, counts
        await asyncio.sleep(0.05)


@pytest.mark.real
async def test_fifty_streams_finish(stack: Stack) -> None:
    """Each gets all its tokens and one reason, through the SDK in strict mode."""
    client = openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0, timeout=300, _strict_response_validation=True
    )

    async def one(number: int) -> tuple[int, list[str]]:
        stream = await client.chat.completions.create(
            **question(number, max_tokens=24, extra_body={"min_tokens": 24}),  # type: ignore[call-overload]  # one dict for all
            stream=True,
            stream_options={"include_usage": True},
        )
        tokens, reasons = 0, []
        async for chunk in stream:
            reasons += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        return tokens, reasons

    async with client:
        results = await asyncio.gather(*(one(number) for number in range(CLIENTS)))
    assert results == [(24, ["length"])] * CLIENTS


@pytest.mark.real
async def test_clients_that_leave_their_streams_leave_nothing_running(http: httpx.AsyncClient) -> None:
    """Fifty streams broken off after their first words: within 2 s the engine runs nothing."""

    async def one(number: int) -> None:
        async with http.stream(
            "POST", "/v1/chat/completions", json=question(number, stream=True, max_tokens=4000, min_tokens=4000)
        ) as reply:
            assert reply.status_code == 200
            async for line in reply.aiter_lines():
                if '"content":"' in line and '"content":""' not in line:
                    return

    await asyncio.gather(*(one(number) for number in range(CLIENTS)))
    assert await until_idle(http) < 2


@pytest.mark.real
async def test_clients_that_leave_while_they_wait_leave_nothing_running(http: httpx.AsyncClient) -> None:
    """Four times as many as the engine decodes at once, unstreamed: it has those that it can work on, as many again as may wait
    for them, the rest is refused; and running and waiting ones alike are aborted."""
    before = await in_engine(http)
    assert not any(before.values())
    waiting = [
        asyncio.create_task(http.post("/v1/chat/completions", json=question(number, max_tokens=400, min_tokens=400)))
        for number in range(4 * SLOTS)
    ]
    async with asyncio.timeout(60):
        while sum(task.done() for task in waiting) < 3 * SLOTS - MAX_WAITING:
            await asyncio.sleep(0.1)
    assert {task.result().status_code for task in waiting if task.done()} == {503}
    async with asyncio.timeout(60):
        while (counts := await in_engine(http))["vllm:num_requests_waiting"]:
            assert counts["hermes2_engine_requests"] <= SLOTS
            await asyncio.sleep(0.1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await until_idle(http) < 2


@pytest.mark.real
async def test_the_next_client_is_served(http: httpx.AsyncClient) -> None:
    """After all that, an ordinary request is answered."""
    reply = await http.post("/v1/chat/completions", json=question(1, max_tokens=4))
    assert reply.status_code == 200


async def test_tokens_travel_together_under_load(scripted_stack: Stack) -> None:
    """Fifty streams of 200 tokens/s each: a message carries five tokens or more, and none is lost."""
    tokens = frames = 0

    async def one(client: httpx.AsyncClient, number: int) -> None:
        nonlocal tokens, frames
        body = question(number, stream=True, max_tokens=200, stream_options={"include_usage": True})
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                frames += '"delta":{"content":' in line
                tokens += 200 if '"completion_tokens":200' in line else 0

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=scripted_stack.url, headers=HEADERS, timeout=300, limits=limits) as client:
        await asyncio.gather(*(one(client, number) for number in range(CLIENTS)))
    assert tokens == 200 * CLIENTS
    assert tokens / frames >= 5
