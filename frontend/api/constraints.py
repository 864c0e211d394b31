"""What holds a reply to a form, whatever the wire: the functions that may be called, and JSON of a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from frontend.domain.errors import InvalidRequest
from frontend.domain.json_schema import Budget, enforceable
from frontend.domain.tools import Tool, ToolChoice
from frontend.services.chat import JsonFormat

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


class Function(Protocol):
    """A function as a client describes it."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def parameters(self) -> Mapping[str, Any] | None: ...
    @property
    def strict(self) -> bool | None: ...


class Only(msgspec.Struct, frozen=True, kw_only=True):
    """A choice among the tools that are offered."""

    names: Sequence[str]
    required: bool
    several: bool = True


Wanted = Literal["none", "auto", "required"] | Only | None


def offered(functions: Mapping[int, Function], wanted: Wanted, inner: str, budget: Budget) -> list[Tool]:
    """What the model is told of. With tool_choice "none" that is nothing. Raises InvalidRequest.

    `functions`: by their places among the tools.
    `inner`: where a function is in its tool, ".function" in chats.
    """
    if wanted == "none":
        return []
    tools = [tool(each, f"tools[{i}]{inner}", budget) for i, each in functions.items()]
    names: set[str] = set()
    for i, each in zip(functions, tools, strict=True):
        if each.name in names:
            raise InvalidRequest(f"There are two tools {each.name!r}.", param=f"tools[{i}]{inner}.name")
        names.add(each.name)
    return tools


def tool(data: Function, where: str, budget: Budget) -> Tool:
    path = f"{where}.parameters"
    enforced: Mapping[str, Any] = enforceable(data.parameters or NO_ARGUMENTS, path, budget, strict=bool(data.strict))
    if enforced.get("type", "object") != "object":
        raise InvalidRequest("The parameters of a function must be an object.", param=path)
    if not enforced.keys().isdisjoint(("$ref", "anyOf", "enum", "const")):
        if data.strict:
            raise InvalidRequest("The parameters of a function must be an object, and said to be one.", param=path)
        enforced = ANY_OBJECT
    elif "type" not in enforced:
        enforced = {**enforced, "type": "object"}
    return Tool(name=data.name, description=data.description, parameters=data.parameters, enforced=enforced)


def choice(wanted: Wanted, tools: Sequence[Tool], parallel: bool | None) -> ToolChoice | None:
    """None where nothing may be called. Raises InvalidRequest for a choice among tools that are not there."""
    if not tools:
        if wanted not in (None, "none", "auto"):
            raise InvalidRequest("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
        return None
    several = parallel is not False
    if isinstance(wanted, Only):
        chosen = select(wanted.names, tools)
        return ToolChoice(callable=chosen, required=wanted.required, several=several and wanted.several)
    return ToolChoice(callable=tools, required=wanted == "required", several=several)


def select(wanted: Sequence[str], tools: Sequence[Tool]) -> list[Tool]:
    by_name = {tool.name: tool for tool in tools}
    names = dict.fromkeys(wanted)
    for name in names:
        if name not in by_name:
            raise InvalidRequest(f"There is no tool {name!r}.", param="tool_choice")
    return [by_name[name] for name in names]


def any_json() -> JsonFormat:
    return JsonFormat(ANY_OBJECT, ANY_OBJECT)


def json_of(schema: Mapping[str, Any] | None, strict: bool | None, where: str, budget: Budget) -> JsonFormat:
    """`where`: the schema's path. Raises InvalidRequest."""
    wanted = schema if schema is not None else ANY_OBJECT
    return JsonFormat(wanted, enforceable(wanted, where, budget, strict=bool(strict)))
