"""Objects of several kinds in one list, told apart by their `type` where msgspec's own unions cannot: it may be missing, or
be one that is to be refused by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from frontend.domain.errors import InvalidRequest
from frontend.http.errors import invalid_body

T = TypeVar("T")
LONGEST_NAME = 64
"""Characters of a kind's name that are told."""


def read(raw: Mapping[str, Any], kinds: Mapping[str, type[T]], where: str, *, default: str | None, noun: str) -> T:
    """`default`: the kind of an object without a type. Raises InvalidRequest, naming the place.

    A null counts as absent: clients send back what they got with every field that their own types know.
    """
    present = {key: value for key, value in raw.items() if value is not None}
    kind = present.get("type", default)
    if kind is None:
        raise InvalidRequest(
            f"Missing required parameter: '{where}.type'.", param=f"{where}.type", code="missing_required_parameter"
        )
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidRequest(
            f"{noun} of the type {str(kind)[:LONGEST_NAME]!r} are not supported by this service;"
            f" supported are: {', '.join(kinds)}.",
            param=f"{where}.type",
            code="unsupported_parameter",
        )
    try:
        return msgspec.convert(present, kinds[kind], strict=True)
    except msgspec.ValidationError as exc:
        raise invalid_body(placed(str(exc), where)) from exc


def placed(message: str, where: str) -> str:
    """msgspec's words about an object, with the object's own place in front of the place in it."""
    what, in_it, place = message.rpartition(" - at ")
    return f"{what} - at {place.replace('$', f'$.{where}', 1)}" if in_it else f"{message} - at `$.{where}`"


def schema_of(kinds: Iterable[type]) -> dict[str, Any]:
    """JSON schema of any one of them, without references: it stands where none can be resolved.

    What is made of itself (a filter of filters) is told of once; inside it, it is any object.
    """
    schemas, components = msgspec.json.schema_components(kinds, ref_template="{name}")

    def inlined(node: Any, within: frozenset[str]) -> Any:
        if isinstance(node, list):
            return [inlined(each, within) for each in node]
        if not isinstance(node, dict):
            return node
        if (name := node.get("$ref")) is not None:
            return {"type": "object"} if name in within else inlined(components[name], within | {name})
        return {key: inlined(value, within) for key, value in node.items() if key != "discriminator"}

    return {"anyOf": [without_nulls(schema) for schema in inlined(list(schemas), frozenset())]}


def without_nulls(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of what `read` makes this object of: a null is nothing, whatever its name."""
    required = schema.get("required", ())
    properties = {
        name: value if name in required else {"anyOf": [value, {"type": "null"}]}
        for name, value in schema["properties"].items()
    }
    others = {"type": "null"} if schema.get("additionalProperties") is False else {}
    return schema | {"properties": properties, "additionalProperties": others}
