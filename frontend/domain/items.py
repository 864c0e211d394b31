"""What conversations and responses are made of: messages, calls of functions, their results. Tagged as on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from frontend.domain.citations import FileCitation
from frontend.domain.generation import TokenLogprobs

ItemRole = Literal["user", "assistant", "system", "developer"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputText(msgspec.Struct, frozen=True, tag_field="type", tag="input_text"):
    text: str


class OutputText(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="output_text"):
    text: str
    logprobs: Sequence[TokenLogprobs] = ()
    """Per generated token, where they were asked for."""
    annotations: Sequence[FileCitation] = ()
    """What it cites, in the order of their places."""


class Refusal(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


Part = InputText | OutputText | Refusal


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    role: ItemRole
    content: Sequence[Part]
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """The parts as one text, with nothing between them."""
        return "".join(part.refusal if isinstance(part, Refusal) else part.text for part in self.content)


class FunctionCallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str
    """JSON text, as it was generated or sent."""
    status: ItemStatus = "completed"


class FunctionOutputItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"):
    """The result of the call `call_id`, which stands before it."""

    id: str
    call_id: str
    output: str | Sequence[InputText]
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        return self.output if isinstance(self.output, str) else "".join(part.text for part in self.output)


class CompactionItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="compaction"):
    """Stands for the items before it, which a summary has replaced."""

    id: str
    summary: str


class FileSearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that a search has put into the prompt."""

    file_id: str
    filename: str
    attributes: Mapping[str, str | float | bool] = {}
    text: str
    score: float
    """0 to 1."""


class FileSearchCallItem(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="file_search_call"
):
    """Says that documents were searched for a turn; no prompt shows it."""

    id: str
    queries: Sequence[str]
    status: Literal["in_progress", "searching", "completed", "incomplete", "failed"] = "completed"
    results: Sequence[FileSearchResult] = ()
    """What the model was given, in the order of its labels: `[1]` is the first."""


Item = MessageItem | FunctionCallItem | FunctionOutputItem | CompactionItem | FileSearchCallItem


class ItemReference(msgspec.Struct, frozen=True):
    """Stands in an input for an item that is kept."""

    id: str


class StoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item and its place."""

    item: Item
    seq: int
    """In a conversation: its number there, from 1 on, never used twice. In a response without one: its position."""
    response_id: str | None = None
    """The response that brought it, as input or as output."""
    created_at: int
    """Unix time, seconds."""
