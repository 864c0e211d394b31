"""A chat as the prompt sees it: turns of plain text, calls of tools and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from frontend.domain.tools import Tool, ToolCall

Role = Literal["system", "user", "assistant", "tool"]
ToolStyle = Literal["hermes", "brief"]


class Message(msgspec.Struct, frozen=True):
    role: Role
    text: str
    tool_calls: Sequence[ToolCall] = ()
    """What an assistant's turn called."""
    tool_name: str | None = None
    """Whose result a tool's turn holds."""
    tool_call_id: str | None = None
    """The call that a tool's turn answers."""


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a prompt is made of."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_style: ToolStyle = "hermes"
    json_schema: Mapping[str, Any] | None = None
    """Set: the model is told to answer in JSON of this schema, in Hermes-2's own words."""
