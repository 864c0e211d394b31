"""Tools on the wire of chat completions: what is offered, what may be called, and deltas of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from frontend.api.chat import schema
from frontend.domain.errors import InvalidRequest
from frontend.domain.json_schema import Budget, enforceable
from frontend.domain.tools import Tool, ToolCallDelta, ToolChoice

ANY_OBJECT: dict[str, object] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}


def offered(data: schema.CreateChatCompletion, budget: Budget) -> list[Tool]:
    """What the model is told of. With tool_choice "none" that is nothing. Raises InvalidRequest."""
    if data.tool_choice == "none" or not data.tools:
        return []
    tools = [tool(each.function, f"tools[{i}].function", budget) for i, each in enumerate(data.tools)]
    names = [each.name for each in tools]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InvalidRequest(f"There are two tools {name!r}.", param=f"tools[{i}].function.name")
    return tools


def tool(data: schema.FunctionDefinition, where: str, budget: Budget) -> Tool:
    parameters = data.parameters or NO_ARGUMENTS
    path = f"{where}.parameters"
    enforced = enforceable(parameters, path, budget, strict=bool(data.strict))
    if enforced.get("type", "object") != "object":
        raise InvalidRequest("The parameters of a function must be an object.", param=path)
    if not enforced.keys().isdisjoint(("$ref", "anyOf", "enum", "const")):
        if data.strict:
            raise InvalidRequest("The parameters of a function must be an object, and said to be one.", param=path)
        enforced = ANY_OBJECT
    elif "type" not in enforced:
        enforced = enforced | {"type": "object"}
    return Tool(name=data.name, description=data.description, parameters=data.parameters, enforced=enforced)


def choice(data: schema.CreateChatCompletion, tools: Sequence[Tool]) -> ToolChoice | None:
    """None where nothing may be called. Raises InvalidRequest for a choice among tools that are not there."""
    wanted = data.tool_choice
    if not tools:
        if wanted not in (None, "none", "auto"):
            raise InvalidRequest("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
        return None
    several = data.parallel_tool_calls is not False
    if isinstance(wanted, schema.NamedChoice):
        return ToolChoice(callable=select([wanted], tools), required=True, several=False)
    if isinstance(wanted, schema.AllowedChoice):
        allowed = wanted.allowed_tools
        return ToolChoice(callable=select(allowed.tools, tools), required=allowed.mode == "required", several=several)
    return ToolChoice(callable=tools, required=wanted == "required", several=several)


def select(wanted: Sequence[schema.NamedChoice], tools: Sequence[Tool]) -> list[Tool]:
    by_name = {tool.name: tool for tool in tools}
    names = dict.fromkeys(each.function.name for each in wanted)
    for name in names:
        if name not in by_name:
            raise InvalidRequest(f"There is no tool {name!r}.", param="tool_choice")
    return [by_name[name] for name in names]


def delta(call: ToolCallDelta) -> schema.ToolCallDelta:
    function = schema.FunctionDelta(call.arguments, call.name)
    return schema.ToolCallDelta(call.index, function, call.id, "function" if call.id else None)
