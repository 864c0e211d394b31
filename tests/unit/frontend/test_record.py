"""frontend/domain/record and frontend/services/limits/tally: what is known of a request when its generations have ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import pytest
from prometheus_client import REGISTRY

from frontend.domain.errors import Internal, InvalidRequest, Unavailable
from frontend.domain.generation import ChoiceDelta, FinishReason, GenerationDelta
from frontend.domain.record import Record
from frontend.services.generate import Reply
from frontend.services.limits.tally import Tally
from frontend.services.models import Model

MODEL = Model(id="hermes-2", root="smollm2-135m", created=0, max_model_len=512)
PROMPT_TOKENS, CACHED = 40, 32


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def delta(*tokens: int, finish: FinishReason | None = None) -> GenerationDelta:
    """Of so many choices."""
    return GenerationDelta([ChoiceDelta(i, "x" * n, n, None, finish) for i, n in enumerate(tokens)], CACHED)


async def deltas(pieces: Sequence[GenerationDelta | Exception]) -> AsyncGenerator[GenerationDelta, None]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


def counted() -> Mapping[str, float]:
    names = {"tokens": ("kind", "prompt", "cached", "completion")}
    names["generations"] = ("outcome", "completed", "failed", "cancelled")
    return {
        value: REGISTRY.get_sample_value(f"hermes2_{name}_total", {label: value}) or 0.0
        for name, (label, *values) in names.items()
        for value in values
    }


@pytest.fixture
def before() -> Mapping[str, float]:
    return counted()


def gained(before: Mapping[str, float]) -> dict[str, float]:
    return {name: now - before[name] for name, now in counted().items() if now != before[name]}


async def run(
    record: Record, *pieces: GenerationDelta | Exception, leaves_after: int | None = None, n: int = 1
) -> None:
    """Hears a generation as the gate does."""
    tally = Tally(record, Clock())
    reply = Reply(MODEL, PROMPT_TOKENS, n, 100, deltas(pieces))
    with tally.of(reply):
        async with aclosing(reply.deltas) as generation:
            async for heard, piece in aenumerate(generation):
                tally.hear(piece)
                if heard == leaves_after:
                    return


async def aenumerate(
    generation: AsyncGenerator[GenerationDelta, None],
) -> AsyncGenerator[tuple[int, GenerationDelta], None]:
    number = 0
    async for piece in generation:
        number += 1
        yield number, piece


async def test_a_generation_is_told_once_when_it_ends(before: Mapping[str, float]) -> None:
    """Tokens of prompt, cache and answer, as its usage has them; first and last token by the clock."""
    record = Record()
    await run(record, delta(1), delta(2), delta(1, finish="stop"))
    assert gained(before) == {"prompt": 40, "cached": 32, "completion": 4, "completed": 1}
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (40, 32, 4)
    assert (record.first_token_at, record.last_token_at) == (100.5, 101.5)
    assert record.inter_token_s == pytest.approx(1 / 3)


async def test_generations_of_one_request_add_up() -> None:
    """Their tokens do; the first token is the first of all, the wait is the longest."""
    record = Record()
    for wait_s in (0.1, 0.3, 0.2):
        record.waited(wait_s)
        await run(record, delta(1), delta(1, finish="length"))
    assert (record.prompt_tokens, record.completion_tokens, record.choices) == (120, 6, 3)
    assert (record.queue_s, record.first_token_at) == (0.3, 100.5)


async def test_the_pace_is_that_of_one_choice() -> None:
    """Two choices side by side are not twice as fast."""
    one, two = Record(), Record()
    await run(one, delta(1), delta(1), delta(1, finish="stop"))
    await run(two, delta(1, 1), delta(1, 1), delta(1, 1, finish="stop"), n=2)
    assert one.inter_token_s == two.inter_token_s == 0.5


async def test_one_token_has_no_pace() -> None:
    """Nor has a reply without any."""
    record = Record()
    assert record.inter_token_s is None
    await run(record, delta(1, finish="stop"))
    assert record.inter_token_s is None


async def test_who_leaves_has_cancelled_what_was_not_finished(before: Mapping[str, float]) -> None:
    """What was said until then counts."""
    record = Record()
    await run(record, delta(1), delta(1), delta(1, finish="stop"), leaves_after=2)
    assert gained(before) == {"prompt": 40, "cached": 32, "completion": 2, "cancelled": 1}


async def test_who_leaves_after_the_last_token_has_cancelled_nothing(before: Mapping[str, float]) -> None:
    """A reader that stops at the end, not behind it."""
    await run(Record(), delta(1), delta(1, finish="stop"), leaves_after=2)
    assert gained(before)["completed"] == 1


@pytest.mark.parametrize("error", [Unavailable("Away."), Internal("Broken."), RuntimeError("broken")])
async def test_a_failure_is_one(before: Mapping[str, float], error: Exception) -> None:
    """Before the first token it has used nothing; afterwards what there was."""
    with pytest.raises(type(error)):
        await run(Record(), error)
    assert gained(before) == {"failed": 1}
    with pytest.raises(type(error)):
        await run(Record(), delta(3), error)
    assert gained(before) == {"prompt": 40, "cached": 32, "completion": 3, "failed": 2}


async def test_what_the_engine_refuses_was_no_generation(before: Mapping[str, float]) -> None:
    """A client with a wrong schema wakes nobody up; its line has the size of its prompt."""
    record = Record()
    with pytest.raises(InvalidRequest):
        await run(record, InvalidRequest("No."))
    assert gained(before) == {}
    assert (record.prompt_tokens, record.completion_tokens) == (40, 0)
