"""Tools on the wire of responses: what is offered, what may be called, and how both are shown again."""

from __future__ import annotations

from collections.abc import Mapping

from frontend.api import constraints, file_search, kinds
from frontend.api.file_search import FileSearchChoice, FileSearchTool, FileSearchToolBody
from frontend.api.responses import schema
from frontend.domain.errors import InvalidRequest


def tools(data: schema.ResponseInput) -> list[schema.AnyTool]:
    """Raises InvalidRequest for tools of other types: what they do, nobody does here."""
    return [
        kinds.read(each, schema.TOOLS, f"tools[{i}]", default=None, noun="Tools")
        for i, each in enumerate(data.tools or ())
    ]


def functions(data: schema.ResponseInput) -> Mapping[int, schema.FunctionTool]:
    """By their places among the tools."""
    return {i: each for i, each in enumerate(tools(data)) if isinstance(each, schema.FunctionTool)}


def searched(data: schema.ResponseInput) -> FileSearchTool | None:
    """None where the choice of tools leaves it out. Raises InvalidRequest."""
    tool = file_search.only_one([each for each in tools(data) if isinstance(each, FileSearchTool)])
    match data.tool_choice:
        case FileSearchChoice():
            chosen, named = True, True
        case schema.FunctionChoice():
            chosen, named = False, False
        case schema.AllowedFunctions(tools=allowed):
            chosen = named = any(isinstance(each, FileSearchChoice) for each in allowed)
        case choice:
            chosen, named = choice != "none", False
    if named and tool is None:
        raise InvalidRequest("There is no tool 'file_search'.", param="tool_choice")
    return tool if chosen else None


def wanted(data: schema.ResponseInput) -> constraints.Wanted:
    """The request's tool_choice, as far as functions go. The search is a tool that was used: where any one must be, that
    one was."""
    match data.tool_choice:
        case schema.FunctionChoice(name):
            return constraints.Only(names=[name], required=True, several=False)
        case FileSearchChoice():
            return "none"
        case schema.AllowedFunctions(mode=mode, tools=allowed):
            names = [each.name for each in allowed if isinstance(each, schema.FunctionChoice)]
            if not names:
                return "none"
            return constraints.Only(names=names, required=mode == "required" and len(names) == len(allowed))
        case "required" if searched(data) is not None:
            return "auto"
        case choice:
            return choice


def shown(data: schema.ResponseInput) -> list[schema.FunctionToolBody | FileSearchToolBody]:
    return [
        file_search.body(each)
        if isinstance(each, FileSearchTool)
        else schema.FunctionToolBody(
            name=each.name, description=each.description, parameters=each.parameters, strict=each.strict
        )
        for each in tools(data)
    ]
