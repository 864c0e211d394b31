"""Tools on the wire of chat completions: what is offered, what may be called, and deltas of calls."""

from __future__ import annotations

from frontend.api import constraints, file_search
from frontend.api.chat import schema
from frontend.api.file_search import FileSearchChoice, FileSearchTool
from frontend.domain.errors import InvalidRequest
from frontend.domain.json_schema import Budget
from frontend.domain.tools import Tool, ToolCallDelta


def wanted(data: schema.CreateChatCompletion) -> constraints.Wanted:
    """The request's tool_choice."""
    match data.tool_choice:
        case schema.NamedChoice(function):
            return constraints.Only(names=[function.name], required=True, several=False)
        case FileSearchChoice():
            return "none"
        case "required" if searched(data) is not None:  # it is a tool that was used
            return "auto"
        case schema.AllowedChoice(allowed):
            names = [each.function.name for each in allowed.tools]
            return constraints.Only(names=names, required=allowed.mode == "required")
        case choice:
            return choice


def searched(data: schema.CreateChatCompletion) -> FileSearchTool | None:
    """None where the choice of tools leaves it out. Raises InvalidRequest."""
    tool = file_search.only_one([each for each in data.tools or () if isinstance(each, FileSearchTool)])
    if isinstance(data.tool_choice, FileSearchChoice) and tool is None:
        raise InvalidRequest("There is no tool 'file_search'.", param="tool_choice")
    left_out = data.tool_choice == "none" or isinstance(data.tool_choice, schema.AllowedChoice | schema.NamedChoice)
    return None if left_out else tool


def offered(data: schema.CreateChatCompletion, budget: Budget) -> list[Tool]:
    functions = {i: each.function for i, each in enumerate(data.tools or ()) if isinstance(each, schema.FunctionTool)}
    return constraints.offered(functions, wanted(data), ".function", budget)


def delta(call: ToolCallDelta) -> schema.ToolCallDelta:
    function = schema.FunctionDelta(call.arguments, call.name)
    return schema.ToolCallDelta(call.index, function, call.id, "function" if call.id else None)
