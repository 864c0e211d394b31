"""A response: one turn of the model that is kept, as a record and as the events by which it came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from frontend.domain.citations import FileCitation
from frontend.domain.generation import TokenLogprobs, Usage
from frontend.domain.items import Item

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
RUNNING: tuple[ResponseStatus, ...] = ("queued", "in_progress")
IncompleteReason = Literal["max_output_tokens", "content_filter"]
ErrorCode = Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
"""The codes of OpenAI's enumeration that can happen here."""


Degraded = Literal["retrieval", "memory"]


class ResponseError(msgspec.Struct, frozen=True):
    code: ErrorCode
    message: str


class Response(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    status: ResponseStatus
    parameters: bytes
    """JSON of what the request asked for, which the API shows again; nothing else reads it."""
    created_at: int
    """Unix time, seconds."""
    completed_at: int | None = None
    previous_response_id: str | None = None
    conversation_id: str | None = None
    background: bool = False
    dropped: int = 0
    """Without a conversation: so many items of the chain, from its beginning, were left out of the prompt."""
    error: ResponseError | None = None
    incomplete_reason: IncompleteReason | None = None
    usage: Usage | None = None
    output: Sequence[Item] = ()
    degraded: Sequence[Degraded] = ()
    """What its prompt had to do without."""

    @property
    def running(self) -> bool:
        return self.status in RUNNING


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """One step; `n` is its sequence number, from 0 on, without gaps."""

    n: int


class StatusChanged(Event, frozen=True, kw_only=True, tag="status"):
    """The response was queued, created, is running, or has ended. `response` is it, as it was then."""

    name: Literal["queued", "created", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    response: Response


class ItemAdded(Event, frozen=True, kw_only=True, tag="item_added"):
    output_index: int
    item: Item
    """Without its content, which follows."""


class PartAdded(Event, frozen=True, kw_only=True, tag="part_added"):
    item_id: str
    output_index: int


class TextDelta(Event, frozen=True, kw_only=True, tag="text"):
    item_id: str
    output_index: int
    text: str
    logprobs: Sequence[TokenLogprobs] = ()


class TextDone(Event, frozen=True, kw_only=True, tag="text_done"):
    item_id: str
    output_index: int
    text: str
    logprobs: Sequence[TokenLogprobs] = ()


class AnnotationAdded(Event, frozen=True, kw_only=True, tag="annotation"):
    item_id: str
    output_index: int
    annotation_index: int
    annotation: FileCitation


class PartDone(Event, frozen=True, kw_only=True, tag="part_done"):
    item_id: str
    output_index: int
    text: str
    logprobs: Sequence[TokenLogprobs] = ()
    annotations: Sequence[FileCitation] = ()


class SearchProgressed(Event, frozen=True, kw_only=True, tag="file_search"):
    """Of a FileSearchCallItem."""

    name: Literal["in_progress", "searching", "completed"]
    item_id: str
    output_index: int


class ArgumentsDelta(Event, frozen=True, kw_only=True, tag="arguments"):
    item_id: str
    output_index: int
    arguments: str


class ArgumentsDone(Event, frozen=True, kw_only=True, tag="arguments_done"):
    item_id: str
    output_index: int
    name: str
    arguments: str


class ItemDone(Event, frozen=True, kw_only=True, tag="item_done"):
    output_index: int
    item: Item


ResponseEvent = (
    StatusChanged
    | ItemAdded
    | PartAdded
    | TextDelta
    | AnnotationAdded
    | TextDone
    | PartDone
    | SearchProgressed
    | ArgumentsDelta
    | ArgumentsDone
    | ItemDone
)
