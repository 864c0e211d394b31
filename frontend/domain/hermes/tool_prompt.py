"""How Hermes-2 is told of tools, of their results, and of JSON: the words of its model card, with the client's text in between.

Each function returns the text of one turn as pieces. `Marked` pieces are ours, and the tags in them may become the
model's own tokens; plain strings come from outside, and are text whatever they say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from frontend.domain.hermes.tool_calls import CLOSE, CLOSING, OPEN, opening
from frontend.domain.json_schema import Schema
from frontend.domain.messages import Message, ToolStyle
from frontend.domain.tools import Tool

TAGS = ("<tools>", "</tools>", OPEN, CLOSE, "<tool_response>", "</tool_response>", "<schema>", "</schema>")


class Marked(str):
    """Text of ours, in which TAGS are tags."""

    __slots__ = ()


Pieces = list[str]

CALL_SCHEMA = (
    '{"properties": {"arguments": {"title": "Arguments", "type": "object"}, "name": {"title": "Name", "type": "string"}},'
    ' "required": ["arguments", "name"], "title": "FunctionCall", "type": "object"}'
)
CALL_EXAMPLE = f'{OPEN}\n{{"name": <function-name>, "arguments": <args-dict>}}\n{CLOSE}'
HERMES_BEFORE = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags."
    " You may call one or more functions to assist with the user query. Don't make assumptions about what values to"
    " plug into functions. Here are the available tools: <tools> "
)
HERMES_AFTER = (
    f" </tools> Use the following pydantic model json schema for each tool call you will make: {CALL_SCHEMA}\n"
    "For each function call return a json object with function name and arguments within <tool_call></tool_call> XML"
    f" tags as follows:\n{CALL_EXAMPLE}"
)
AROUND_TOOLS: dict[ToolStyle, tuple[str, str]] = {
    "hermes": (HERMES_BEFORE, HERMES_AFTER),
    "brief": ("You can call these functions:\n<tools>\n", f"\n</tools>\nTo call one, write:\n{CALL_EXAMPLE}"),
}
"""What stands before and after the list of tools; "hermes" is the wording that Hermes-2-Pro was trained on."""


def tools_turn(tools: Sequence[Tool], style: ToolStyle) -> Pieces:
    """The system turn that lists the tools."""
    before, after = AROUND_TOOLS[style]
    return [Marked(before), "\n".join(map(signature, tools)), Marked(after)]


def signature(tool: Tool) -> str:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {}
    return dumps({"type": "function", "function": function})


def schema_turn(schema: Schema) -> Pieces:
    """The system turn of Hermes-2's JSON mode."""
    return [
        Marked(
            "You are a helpful assistant that answers in JSON. Here's the json schema you must adhere to:\n<schema>\n"
        ),
        dumps(schema),
        Marked("\n</schema>"),
    ]


def message_turn(message: Message) -> Pieces:
    """Any turn of a chat."""
    if message.role == "tool":
        name = "" if message.tool_name is None else f'"name": {dumps(message.tool_name)}, '
        result = f'{{{name}"content": {dumps(message.text)}}}'
        return [Marked("<tool_response>\n"), result, Marked("\n</tool_response>")]
    pieces: Pieces = [message.text]
    for call in message.tool_calls:
        pieces += [
            Marked("\n" if any(pieces) else ""),
            Marked(f"{OPEN}\n"),
            opening(call.name).removeprefix(f"{OPEN}\n") + arguments(call.arguments) + CLOSING.removesuffix(CLOSE),
            Marked(CLOSE),
        ]
    return pieces


def arguments(text: str) -> str:
    """As they were generated, byte for byte, so that the engine's cache knows them again; never anything but JSON."""
    if not text.strip():
        return "{}"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return dumps(text)
    return text


def dumps(value: object) -> str:
    """JSON as the models read it in training: with spaces, without escapes."""
    return json.dumps(value, ensure_ascii=False)
