"""A constraint as a structural tag, xgrammar's language for what a generation may look like (vLLM: structured_outputs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frontend.domain.generation import Constraint
from frontend.domain.hermes import tool_calls
from frontend.domain.tools import Tool, ToolChoice

MAX_SPACES = 1
"""Between two tokens of JSON; with more a small model goes on writing spaces."""
MAX_CALLS = 4
"""In a turn that may hold nothing but calls. Without a bound a small model goes on calling: at 16, one turn in five of the
embedded model was cut at 600 tokens; at 4, none."""

Format = Mapping[str, Any]


def structural_tag(constraint: Constraint) -> Format:
    return {"type": "structural_tag", "format": turn(constraint)}


def turn(constraint: Constraint) -> Format:
    choice, schema = constraint.tools, constraint.json_schema
    if choice is None:
        assert schema is not None
        return json_value(schema)
    if choice.required:
        return calls(choice)
    if schema is not None:
        return {"type": "or", "elements": [calls(choice), json_value(schema)]}
    return {
        "type": "triggered_tags",
        "triggers": [tool_calls.OPEN],
        "tags": [call(tool) for tool in choice.callable],
        "stop_after_first": not choice.several,
    }


def calls(choice: ToolChoice) -> Format:
    """Calls, one a line, and nothing else."""
    tags = [call(tool) for tool in choice.callable]
    one: Format = tags[0] if len(tags) == 1 else {"type": "or", "elements": tags}
    if not choice.several:
        return one
    another = {"type": "sequence", "elements": [{"type": "const_string", "value": "\n"}, one]}
    more = {"type": "repeat", "min": 0, "max": MAX_CALLS - 1, "content": another}
    return {"type": "sequence", "elements": [one, more]}


def call(tool: Tool) -> Format:
    return {
        "type": "tag",
        "begin": tool_calls.opening(tool.name),
        "content": json_value(tool.enforced),
        "end": tool_calls.CLOSING,
    }


def json_value(schema: Mapping[str, Any]) -> Format:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": MAX_SPACES}
