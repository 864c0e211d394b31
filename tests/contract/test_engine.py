"""One contract for every engine port: the fake of the tests, and the adapter to Triton over the scripted engine and vLLM."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from frontend.domain.errors import InvalidRequest, Unavailable
from frontend.domain.generation import GenerationDelta, GenerationRequest, Sampling
from frontend.domain.ports import Engine
from frontend.triton.engine import open_engine
from perf.service import free_ports
from tests.fakes.engine import FakeEngine

PROMPT = [11, 42, 7, 99]


STACKS = {"scripted": "scripted_stack", "replying": "replying_stack", "vllm": "stack"}


@pytest.fixture(params=["fake", "scripted", "replying", pytest.param("vllm", marks=pytest.mark.real)])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    if request.param == "fake":
        yield FakeEngine()
        return
    stack = request.getfixturevalue(STACKS[request.param])
    async with open_engine(stack.grpc, request_timeout_s=60) as adapter:
        yield adapter


def ask(stream: bool = True, **sampling: object) -> GenerationRequest:
    defaults: dict[str, object] = {"max_tokens": 6, "min_tokens": 6, "temperature": 0}
    return GenerationRequest(
        prompt_ids=PROMPT,
        sampling=Sampling(**(defaults | sampling)),  # type: ignore[arg-type]  # names and types are the test's own
        stream=stream,
        cache_salt="tests",
    )


async def collect(engine: Engine, request: GenerationRequest) -> list[GenerationDelta]:
    return [delta async for delta in engine.generate(request)]


async def running(engine: Engine) -> float:
    text = await engine.metrics()
    values = re.findall(r"^(?:fake_running|hermes2_engine_requests) (\S+)$", text, re.MULTILINE)
    assert values
    return float(values[0])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
async def test_every_choice_is_finished_once(engine: Engine, stream: bool, n: int) -> None:
    """n choices, each with all its tokens and exactly one reason; an unstreamed generation comes in one delta."""
    deltas = await collect(engine, ask(stream, n=n))
    choices = [choice for delta in deltas for choice in delta.choices]
    for index in range(n):
        mine = [choice for choice in choices if choice.index == index]
        assert sum(choice.num_tokens for choice in mine) == 6
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == ["length"]
        assert mine[-1].finish_reason == "length"
    assert stream or len(deltas) == 1


async def test_streamed_and_whole_are_the_same(engine: Engine) -> None:
    """At temperature 0 the text does not depend on how it is fetched."""
    texts = [
        "".join(choice.text for delta in await collect(engine, ask(stream)) for choice in delta.choices)
        for stream in (True, False)
    ]
    assert texts[0] == texts[1]
    assert texts[0]


@pytest.mark.parametrize("stream", [True, False])
async def test_log_probabilities_come_for_every_token(engine: Engine, stream: bool) -> None:
    """One position per token, with no more candidates than were asked for, best first."""
    deltas = await collect(engine, ask(stream, logprobs=2))
    positions = [p for delta in deltas for choice in delta.choices for p in choice.logprobs or ()]
    assert len(positions) == 6
    for position in positions:
        values = [candidate.logprob for candidate in position.top]
        assert len(values) <= 2
        assert values == sorted(values, reverse=True)
        assert position.sampled.logprob <= 0


async def test_a_wrong_request_is_invalid(engine: Engine) -> None:
    """What the engine will not run is the caller's error, naming the parameter."""
    with pytest.raises(InvalidRequest) as caught:
        await collect(engine, ask(max_tokens=0, min_tokens=0))
    assert caught.value.param == "max_tokens"


async def test_closing_a_generation_aborts_it(engine: Engine) -> None:
    """After `aclose` the engine runs nothing for it any more."""
    async with aclosing(engine.generate(ask(max_tokens=1000, min_tokens=1000))) as deltas:
        await anext(deltas)
        assert await running(engine) == 1
    async with asyncio.timeout(2):
        while await running(engine):
            await asyncio.sleep(0.01)


async def test_a_healthy_engine_checks_out(engine: Engine) -> None:
    """check() returns, and metrics are Prometheus text."""
    await engine.check()
    assert re.search(r"^\w[\w:]*(\{.*\})? \S+$", await engine.metrics(), re.MULTILINE)


async def test_an_absent_engine_is_unavailable() -> None:
    """Nobody listening: Unavailable at once, with a time to come back, not a transport's error."""
    async with open_engine(f"127.0.0.1:{free_ports(1)[0]}", request_timeout_s=5) as adapter:
        with pytest.raises(Unavailable) as caught:
            await collect(adapter, ask())
        with pytest.raises(Unavailable):
            await adapter.check()
    assert caught.value.retry_after_s > 0
