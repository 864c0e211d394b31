"""What a prompt is built from, and what came of it. Knows no tokenizer: the ids are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from frontend.domain.conversations import ContextSettings, Trim
from frontend.domain.items import Item, StoredItem
from frontend.domain.profiles import Profile
from frontend.domain.tools import Tool

PartName = Literal["tools", "system", "summary", "history", "input", "memory", "retrieval", "frame"]


class ContextTask(msgspec.Struct, frozen=True, kw_only=True):
    """A turn, as far as its prompt depends on it."""

    window_tokens: int
    """Prompt and answer together (Model.max_model_len)."""
    profile: Profile
    instructions: str | None = None
    tools: Sequence[Tool] = ()
    json_schema: Mapping[str, Any] | None = None
    """What the answer is to hold to; the profile says whether the model is told of it."""
    max_output_tokens: int | None = None
    """As the request says it."""
    switches: ContextSettings = ContextSettings()
    """The conversation's; `truncation` of a request is its `trim`."""
    trim: Trim = Trim()
    """The conversation's, or that of the response before, whose `dropped` is `upto`."""
    pinned: Sequence[StoredItem] = ()
    history: Sequence[StoredItem] = ()
    """In the order of `seq`; what stands before the trim is passed over. Without a trim, leading system messages are pinned."""
    input: Sequence[Item] = ()
    memory: Sequence[str] = ()
    """Each a system turn behind the input, in our own words around what was recalled."""
    retrieval: Sequence[str] = ()
    """The same with passages of documents."""
    input_param: str = "input"
    """What errors name when items do not belong together or do not fit."""


class ContextTurn(msgspec.Struct, frozen=True):
    """One ChatML turn, as the model reads it."""

    role: str
    text: str
    tokens: int


class ContextPart(msgspec.Struct, frozen=True):
    name: PartName
    tokens: int
    turns: Sequence[ContextTurn]
    """Empty for "frame": the control token before the first turn, if the model has one, and the opening of the answer."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt, and how it came about."""

    parts: Sequence[ContextPart]
    """In the order of the prompt, "frame" last; those without tokens are missing. Their tokens add up to the prompt's."""
    prompt_ids: Sequence[int]
    prefix_tokens: int
    """With so many of `prompt_ids` the next turn's prompt begins too, unless there is a trim before it."""
    answer_tokens: int
    """The longest answer: what was asked for, or else what the window leaves (and the profile allows)."""
    room_tokens: int
    """What history may fill, with an input of nothing."""
    trim: Trim
    """Differs from the task's if this turn has left something out: it is to be stored with the turn."""

    def tokens(self, name: PartName) -> int:
        return sum(part.tokens for part in self.parts if part.name == name)

    def fill(self, answer_tokens: int = 0) -> float:
        """The share of its room that history fills once this turn's input, and its answer, belong to it."""
        filled = self.tokens("history") + self.tokens("input") + answer_tokens
        return filled / self.room_tokens if self.room_tokens > 0 else float("inf")
