"""Tools on the wire of responses: what is offered, what may be called, and how both are shown again."""

from __future__ import annotations

from frontend.api import constraints, kinds
from frontend.api.responses import schema


def functions(data: schema.ResponseInput) -> list[schema.FunctionTool]:
    """Raises InvalidRequest for tools of other types: what they do, nobody does here."""
    return [
        kinds.read(each, schema.TOOLS, f"tools[{i}]", default=None, noun="Tools")
        for i, each in enumerate(data.tools or ())
    ]


def wanted(data: schema.ResponseInput) -> constraints.Wanted:
    """The request's tool_choice."""
    match data.tool_choice:
        case schema.FunctionChoice(name):
            return constraints.Only(names=[name], required=True, several=False)
        case schema.AllowedFunctions(mode=mode, tools=allowed):
            return constraints.Only(names=[each.name for each in allowed], required=mode == "required")
        case choice:
            return choice


def shown(data: schema.ResponseInput) -> list[schema.FunctionToolBody]:
    return [
        schema.FunctionToolBody(
            name=each.name, description=each.description, parameters=each.parameters, strict=each.strict
        )
        for each in functions(data)
    ]
