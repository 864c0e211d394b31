"""What the routes that generate have in common: ids, collecting the choices, counting the tokens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing

import msgspec

from frontend.api.parameters import PromptTokensDetails, UsageBody
from frontend.domain import ids
from frontend.domain.citations import FileCitation
from frontend.domain.errors import Internal
from frontend.domain.generation import ChoiceDelta, FinishReason, TokenLogprobs, Usage
from frontend.domain.tools import ToolCall
from frontend.services.generate import Reply


class Head(msgspec.Struct, frozen=True):
    """What every chunk of one reply repeats."""

    id: str
    created: int

    @classmethod
    def new(cls, prefix: str) -> Head:
        return cls(ids.new(prefix), int(time.time()))


class Tally:
    """Counts tokens while a reply runs."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0
        self._cached_tokens = 0

    def add(self, choice: ChoiceDelta, num_cached_tokens: int) -> None:
        self._completion_tokens += choice.num_tokens
        self._cached_tokens = max(self._cached_tokens, num_cached_tokens)

    @property
    def usage(self) -> Usage:
        return Usage(self._prompt_tokens, self._completion_tokens, self._cached_tokens)


class Collected(msgspec.Struct, frozen=True):
    """One choice, whole."""

    index: int
    text: str
    logprobs: list[TokenLogprobs] | None
    finish_reason: FinishReason
    calls: list[ToolCall]
    citations: Sequence[FileCitation]


async def collect(reply: Reply) -> tuple[list[Collected], Usage]:
    """Reads a reply to its end. Raises what the engine raises."""
    parts: list[list[ChoiceDelta]] = [[] for _ in range(reply.n)]
    tally = Tally(reply.prompt_tokens)
    async with aclosing(reply.deltas) as deltas:
        async for delta in deltas:
            for choice in delta.choices:
                tally.add(choice, delta.num_cached_tokens)
                parts[choice.index].append(choice)
    return [whole(index, deltas) for index, deltas in enumerate(parts)], tally.usage


def whole(index: int, deltas: list[ChoiceDelta]) -> Collected:
    finish = deltas[-1].finish_reason if deltas else None
    if finish is None:
        raise Internal("The engine ended a choice without a reason.")
    logprobs = [p for delta in deltas for p in delta.logprobs or ()] if deltas[-1].logprobs is not None else None
    return Collected(
        index, "".join(delta.text for delta in deltas), logprobs, finish, calls(deltas), deltas[-1].citations
    )


def calls(deltas: Iterable[ChoiceDelta]) -> list[ToolCall]:
    """The calls of one choice, put together."""
    whole: list[ToolCall] = []
    for piece in (call for delta in deltas for call in delta.calls):
        if piece.id is not None and piece.name is not None:
            whole.append(ToolCall(piece.id, piece.name, piece.arguments))
        else:
            begun = whole[piece.index]
            whole[piece.index] = msgspec.structs.replace(begun, arguments=begun.arguments + piece.arguments)
    return whole


def usage_body(usage: Usage) -> UsageBody:
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )


def shown(piece: bytes) -> str:
    """A token's bytes as text; part of a character shows as the replacement character."""
    return piece.decode(errors="replace")
