"""Which turns a prompt has, and in which order. Text only: knows nothing of tokens, and cuts nothing.

    tools, schema | profile, instructions, pinned | summary | history | input | memory | retrieval

What changes least stands first, and what differs in each turn stands last, so that each prompt begins like the one before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile

import msgspec

from frontend.domain.context import ContextTask, PartName
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.hermes.tool_prompt import Pieces
from frontend.domain.items import Item, StoredItem
from frontend.domain.messages import Chat, Message
from frontend.services.context import transcript
from frontend.services.context.transcript import Transcript

ORDER: Sequence[PartName] = ("tools", "system", "summary", "history", "input", "memory", "retrieval")


class Exchange(msgspec.Struct, frozen=True):
    """A user's message with the answer, and all calls and results between them: what is left out as a whole."""

    turns: list[Pieces]
    upto: int
    """The sequence number of its last item."""


class Layout(msgspec.Struct, frozen=True):
    fixed: dict[PartName, list[Pieces]]
    """All parts but history."""
    history: list[Exchange]
    bound: int
    """So many exchanges, the newest, must stay: one of their calls has its result in the input, or not yet."""


def lay_out(task: ContextTask, renderer: PromptRenderer) -> Layout:
    """Raises InvalidRequest for items that do not belong together."""
    pinned, history, given = arranged(task)
    said = transcript.read([*(stored.item for stored in history), *given], task.input_param, len(history))
    exchanges, of_input = grouped(said, history, renderer)
    calls = [call for call, result in said.pairs if call < len(history) <= result]
    first_bound = bisect_right(said.exchanges, min(calls)) - 1 if calls else len(exchanges)
    return Layout(
        fixed=head(task, pinned, renderer)
        | {
            "input": of_input,
            "memory": system_turns(task.memory if task.switches.memory else (), renderer),
            "retrieval": system_turns(task.retrieval if task.switches.retrieval else (), renderer),
        },
        history=exchanges,
        bound=len(exchanges) - first_bound,
    )


def arranged(task: ContextTask) -> tuple[list[str], list[StoredItem], list[Item]]:
    """Texts that are pinned, history behind the trim, input. Before the first trim, leading system messages are pinned:
    so they stand in the same place in the turn that brings them and in all later ones."""
    history = [stored for stored in task.history if stored.seq > task.trim.upto]
    items = [*(stored.item for stored in history), *task.input]
    leading = list(takewhile(transcript.is_system, items)) if task.trim.upto == 0 else []
    pinned = [*(stored.item for stored in task.pinned), *leading]
    texts = [transcript.system_text(item) for item in pinned]
    return texts, history[len(leading) :], items[max(len(history), len(leading)) :]


def grouped(
    said: Transcript, history: Sequence[StoredItem], renderer: PromptRenderer
) -> tuple[list[Exchange], list[Pieces]]:
    """History by exchanges, and the input. A turn belongs where its first item does."""
    starts = [start for start in said.exchanges if start < len(history)]
    turns: list[list[Pieces]] = [[] for _ in starts]
    of_input: list[Pieces] = []
    for line in said.lines:
        place = turns[bisect_right(starts, line.first) - 1] if line.first < len(history) else of_input
        place.append(renderer.message(line.message))
    ends = [*starts[1:], len(history)]
    return [Exchange(t, history[end - 1].seq) for t, end in zip(turns, ends[: len(turns)], strict=True)], of_input


def head(task: ContextTask, pinned: Sequence[str], renderer: PromptRenderer) -> dict[PartName, list[Pieces]]:
    own = [text for text in (task.profile.system, task.instructions) if text is not None]
    schema = task.json_schema if task.profile.json_prompt else None
    turns = renderer.turns(
        Chat(
            messages=[Message("system", text) for text in (*own, *pinned)],
            tools=task.tools,
            tool_style=task.profile.tool_style,
            json_schema=schema,
        )
    )
    of_tools = bool(task.tools) + (schema is not None)
    summary = task.trim.summary if task.switches.summary else None
    return {
        "tools": turns[:of_tools],
        "system": turns[of_tools:],
        "summary": [renderer.message(transcript.summary_message(summary))] if summary else [],
    }


def system_turns(texts: Sequence[str], renderer: PromptRenderer) -> list[Pieces]:
    return [renderer.message(Message("system", text)) for text in texts]
