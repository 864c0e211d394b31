"""Functions that a model may call, and calls of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function as the client describes it."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """JSON schema of the arguments, as it was sent: the model reads it."""
    enforced: Mapping[str, Any]
    """JSON schema that generated arguments are held to: `parameters`, as far as guided decoding knows their keywords."""


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which tools may be called in this turn, and whether one must be."""

    callable: Sequence[Tool]
    required: bool
    several: bool
    """More than one call in the turn."""


class ToolCall(msgspec.Struct, frozen=True):
    """A call that is complete. `arguments`: JSON text."""

    id: str
    name: str
    arguments: str


class ToolCallDelta(msgspec.Struct, frozen=True):
    """What one call of a choice gained: its id and name come first and once, its arguments piece by piece."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None
