"""From items to a prompt's ids: counts the turns, trims history, puts it all together.

The same task gives the same bytes in every process: nothing here depends on time, on chance or on what is cached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from frontend import settings
from frontend.domain.context import Context, ContextPart, ContextTask, ContextTurn, PartName
from frontend.domain.conversations import Trim
from frontend.domain.hermes.tool_prompt import Pieces
from frontend.observability import tracing
from frontend.services.context import trimming
from frontend.services.context.layout import ORDER, Exchange, Layout, lay_out
from frontend.services.tokenize import Ids, Tokenizer

CHARS_PER_TOKEN = 8
"""More than common text has: history is tokenised from its end, in blocks that are likely to fill the window at once."""
NOT_LASTING: Sequence[PartName] = ("memory", "retrieval")
"""In no other turn's prompt."""


class Encoded(msgspec.Struct, frozen=True):
    """A turn, as text and as ids."""

    pieces: Pieces
    ids: Ids


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """A task's turns with their ids; numbers are tokens."""

    layout: Layout
    turns: dict[PartName, list[Encoded]]
    """All but history."""
    exchanges: list[list[Encoded]]
    """History, the newest first, as far as it can matter."""
    newest: list[int]
    """The same, counted."""
    frame: int
    fixed: int
    """All but history."""
    room: int
    """For history; below zero if the rest is too long already."""
    most: int


class Outlook(msgspec.Struct, frozen=True):
    """Of a conversation between two turns."""

    fill: float
    """The share of its room that history fills."""
    trim: Trim
    """The next; the same as now if there is nothing to cut."""


class ContextBuilder:
    def __init__(self, tokenizer: Tokenizer, limits: settings.ContextSettings) -> None:
        self.limits = limits
        self._tokenizer = tokenizer
        self._renderer = tokenizer.renderer

    async def build(self, task: ContextTask) -> Context:
        """Raises InvalidRequest for items that do not belong together, ContextLengthExceeded."""
        with tracing.span("prompt.build") as span:
            context = await self._build(task)
            span.set("hermes2.prompt_tokens", len(context.prompt_ids))
            span.set("hermes2.trimmed", context.trim != task.trim)
            return context

    async def _build(self, task: ContextTask) -> Context:
        counted = await self._count(task)
        newest, room = counted.newest, counted.room
        kept = len(newest)
        if task.switches.trim and sum(newest) > room:
            kept = max(trimming.stay(newest, room, self.limits.keep_share), counted.layout.bound)
        turns = counted.turns | {"history": [turn for each in reversed(counted.exchanges[:kept]) for turn in each]}
        prompt_tokens = counted.fixed + sum(newest[:kept])
        if prompt_tokens > counted.most:
            raise trimming.too_long(task, prompt_tokens)
        passing = sum(count(turns[name]) for name in NOT_LASTING)
        return Context(
            parts=[*described(turns), ContextPart("frame", counted.frame, ())],
            prompt_ids=self._renderer.framed(turn.ids for name in ORDER for turn in turns[name]),
            prefix_tokens=prompt_tokens - passing - self._renderer.opening_tokens,
            answer_tokens=trimming.answer_tokens(task, prompt_tokens),
            room_tokens=room + count(turns["input"]) + passing,
            trim=moved(task.trim, counted.layout, kept),
        )

    async def outlook(self, task: ContextTask, share: float) -> Outlook:
        """Where the prompts are to begin once history fills `share` of its room, or now if it does. Raises InvalidRequest."""
        counted = await self._count(task)
        newest, room = counted.newest, counted.room
        fill = sum(newest) / room if room > 0 else float("inf")
        keep_share = self.limits.keep_share - max(0.0, share - fill)
        kept = max(trimming.stay(newest, room, keep_share), counted.layout.bound)
        return Outlook(fill, moved(task.trim, counted.layout, kept))

    async def _count(self, task: ContextTask) -> Counted:
        layout = lay_out(task, self._renderer)
        chars = sum(len(piece) for turns in layout.fixed.values() for pieces in turns for piece in pieces)
        self._tokenizer.check_length(chars, task.input_param)
        turns = dict(zip(layout.fixed, await self._encode(layout.fixed.values()), strict=True))
        frame = len(self._renderer.framed(()))
        fixed = frame + sum(map(count, turns.values()))
        budget = trimming.budget(task, self.limits)
        room = budget.prompt_tokens - fixed
        exchanges = await self._newest(layout, task, room)
        return Counted(
            layout=layout,
            turns=turns,
            exchanges=exchanges,
            newest=[count(exchange) for exchange in exchanges],
            frame=frame,
            fixed=fixed,
            room=room,
            most=budget.most_tokens,
        )

    async def _newest(self, layout: Layout, task: ContextTask, room: int) -> list[list[Encoded]]:
        """The exchanges, the newest first: all, or as many as do not fit. What is older is left out uncounted, so that a
        long history costs no more than a window of it."""
        result: list[list[Encoded]] = []
        for block in blocks(layout.history, CHARS_PER_TOKEN * task.window_tokens):
            if task.switches.trim and len(result) >= layout.bound and sum(map(count, result)) > room:
                break
            result += await self._encode([exchange.turns for exchange in block])
        return result

    async def _encode(self, groups: Iterable[Sequence[Pieces]]) -> list[list[Encoded]]:
        groups = list(groups)
        ids = iter(await self._tokenizer.turns([pieces for group in groups for pieces in group]))
        return [[Encoded(pieces, next(ids)) for pieces in group] for group in groups]


def blocks(history: Sequence[Exchange], chars: int) -> Iterator[list[Exchange]]:
    """From the end; each but the last has so many characters at least."""
    block: list[Exchange] = []
    size = 0
    for exchange in reversed(history):
        block.append(exchange)
        size += sum(len(piece) for pieces in exchange.turns for piece in pieces)
        if size >= chars:
            yield block
            block, size = [], 0
    yield block


def moved(trim: Trim, layout: Layout, kept: int) -> Trim:
    """The trim when so many exchanges are kept. Its summary stays as it is."""
    left_out = layout.history[: len(layout.history) - kept]
    return msgspec.structs.replace(trim, upto=left_out[-1].upto) if left_out else trim


def count(turns: Iterable[Encoded]) -> int:
    return sum(len(turn.ids) for turn in turns)


def described(turns: dict[PartName, list[Encoded]]) -> list[ContextPart]:
    return [
        ContextPart(name, count(turns[name]), [described_turn(turn) for turn in turns[name]])
        for name in ORDER
        if turns[name]
    ]


def described_turn(turn: Encoded) -> ContextTurn:
    role, *text = turn.pieces
    return ContextTurn(role.removesuffix("\n"), "".join(text), len(turn.ids))
