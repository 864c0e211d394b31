"""Tools on the wire of chat completions: what is offered, what may be called, and deltas of calls."""

from __future__ import annotations

from frontend.api import constraints
from frontend.api.chat import schema
from frontend.domain.json_schema import Budget
from frontend.domain.tools import Tool, ToolCallDelta


def wanted(data: schema.CreateChatCompletion) -> constraints.Wanted:
    """The request's tool_choice."""
    match data.tool_choice:
        case schema.NamedChoice(function):
            return constraints.Only(names=[function.name], required=True, several=False)
        case schema.AllowedChoice(allowed):
            names = [each.function.name for each in allowed.tools]
            return constraints.Only(names=names, required=allowed.mode == "required")
        case choice:
            return choice


def offered(data: schema.CreateChatCompletion, budget: Budget) -> list[Tool]:
    functions = [each.function for each in data.tools or ()]
    return constraints.offered(functions, wanted(data), ".function", budget)


def delta(call: ToolCallDelta) -> schema.ToolCallDelta:
    function = schema.FunctionDelta(call.arguments, call.name)
    return schema.ToolCallDelta(call.index, function, call.id, "function" if call.id else None)
