"""What a response is asked for, and what a running one looks like to whoever reads it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal

import msgspec

from frontend.domain.generation import Sampling, Usage
from frontend.domain.items import Item, ItemReference
from frontend.domain.responses import Response, ResponseEvent
from frontend.domain.tools import Tool, ToolChoice
from frontend.services.chat import JsonFormat
from frontend.services.file_search import FileSearch


class ResponseTask(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    input: Sequence[Item | ItemReference]
    """With ids of their own, new or as they were sent."""
    sampling: Sampling
    """`max_tokens` is the request's max_output_tokens; n is 1."""
    parameters: bytes
    """JSON of the request's parameters, for showing them again."""
    instructions: str | None = None
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice | None = None
    file_search: FileSearch | None = None
    """What the request itself wants searched."""
    json_format: JsonFormat | None = None
    profile: str | None = None
    previous_response_id: str | None = None
    conversation_id: str | None = None
    session_id: str | None = None
    """Of the header X-Session-ID."""
    truncation: Literal["auto", "disabled"] | None = None
    """None: not said; then conversations are trimmed and chains are not."""
    store: bool = True
    background: bool = False
    stream: bool = False


class Run(msgspec.Struct, frozen=True):
    """A response that has been accepted. Closing `events` aborts it, unless it runs in the background."""

    response: Response
    events: AsyncGenerator[ResponseEvent, None]
    """From its first event (number 0) to its end, which is a StatusChanged whose response is not running any more."""


class Compaction(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    created_at: int
    output: Sequence[Item]
    """System messages as they were, and a CompactionItem in the place of all the rest."""
    usage: Usage
