"""JSON schemas that clients send: bounded, and reduced to what guided decoding holds a reply to.

A schema is compiled inside the shared engine, so its cost is bounded here before it comes near: by size, depth, counted
repetitions, properties and the shape of patterns. The worst schemas that pass cost xgrammar 0.2.8 about a second, once,
beside the engine's loop, and 3 ms a token (tests/integration/test_structured_output.py). What it would silently ignore
is refused for `strict`, and left out otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from frontend.domain.errors import InvalidRequest

Schema = Mapping[str, Any]

MAX_BYTES = 16 * 1024
MAX_DEPTH = 16
MAX_STRING_LENGTHS = 1024
"""Sum of the different lengths of strings, each as 256 at most. xgrammar spends 4 ms on each unit (and next to nothing
on a length that it has seen, or on the lengths of lists): 39 different ones around 250 cost it 24 s."""
LONGEST_COUNTED = 256
MAX_PROPERTIES = 128
"""Over the whole schema; optional ones cost quadratically."""
MAX_OPTIONS = 64
"""Members of anyOf, over the whole schema; those that begin alike are followed side by side."""
MAX_PATTERN_CHARS = 256
MAX_PATTERN_REPETITIONS = 64
"""Over all patterns, nested ones multiplied. xgrammar 0.2.8 fails on a single count beyond 128."""

ENFORCED = frozenset(
    (
        *("type", "enum", "const", "anyOf", "$ref", "$defs", "definitions"),
        *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
        *("items", "prefixItems", "minItems", "maxItems"),
        *("pattern", "format", "minLength", "maxLength"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    )
)
ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment"),
    )
)
"""They say something to people and to the model, and nothing to the decoder."""
STRING_LENGTHS = ("minLength", "maxLength")
REPETITIONS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
BOUNDS = (
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)
TYPES = frozenset(("string", "number", "integer", "boolean", "object", "array", "null"))
FORMATS = frozenset(("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri"))
RISKY = re.compile(r"\(\?|\\[0-9bBpPkuxcAzZG]")
"""Lookarounds, back references and their kin: not regular, or not known to the decoder's automata."""
COUNTED = re.compile(r"\{(\d*),?(\d*)\}")


def enforceable(schema: Schema, where: str, *, strict: bool) -> dict[str, Any]:
    """The schema that a reply is held to. `where`: the parameter's path, for errors.

    Raises InvalidRequest for a schema beyond the bounds, for one that is none, and with `strict` for one that asks
    for more than guided decoding can promise.
    """
    if deeper_than(schema, 2 * MAX_DEPTH):
        raise InvalidRequest(f"The JSON schema is nested more than {MAX_DEPTH} levels deep.", param=where)
    size = len(msgspec.json.encode(schema))
    if size > MAX_BYTES:
        raise InvalidRequest(f"The JSON schema has {size} bytes; at most {MAX_BYTES} are taken.", param=where)
    reader = Reader(strict)
    reduced = reader.read(schema, where)
    for path, reference in reader.references:
        check_reference(reduced, reference, path)
    return reduced


class Reader:
    """Walks one schema once."""

    def __init__(self, strict: bool) -> None:
        self.references: list[tuple[str, str]] = []
        self._strict = strict
        self._lengths: set[int] = set()
        self._pattern_repetitions = 0
        self._properties = 0
        self._options = 0

    def read(self, schema: object, where: str) -> dict[str, Any]:
        if not isinstance(schema, Mapping):
            raise InvalidRequest("A JSON schema must be an object.", param=where)
        reduced: dict[str, Any] = {}
        for keyword, value in flat(schema).items():
            path = f"{where}.{keyword}"
            if keyword in ANNOTATIONS:
                continue
            if keyword not in ENFORCED:
                self._cannot(f"The keyword {keyword!r}", path)
                continue
            kept = self._read_keyword(keyword, value, path)
            if kept is not None:
                reduced[keyword] = kept
        self._settle(reduced, where)
        return reduced

    def _read_keyword(self, keyword: str, value: object, path: str) -> object:
        """The value to enforce, or None to leave the keyword out."""
        match keyword:
            case "properties" | "$defs" | "definitions":
                members = expect(value, Mapping, "an object", path)
                self._properties += len(members)
                if self._properties > MAX_PROPERTIES:
                    raise InvalidRequest(
                        f"The JSON schema has more than {MAX_PROPERTIES} properties and definitions in all.", param=path
                    )
                return {name: self._subschema(member, f"{path}.{name}") for name, member in members.items()}
            case "items" | "additionalProperties":
                return self._subschema(value, path)
            case "anyOf" | "prefixItems":
                options = nonempty(value, path)
                self._options += len(options)
                if self._options > MAX_OPTIONS:
                    raise InvalidRequest(f"The JSON schema has more than {MAX_OPTIONS} options in all.", param=path)
                return [self._subschema(option, f"{path}[{i}]") for i, option in enumerate(options)]
            case "enum":
                return nonempty(value, path)
            case "required":
                names = expect(value, list, "a list of names", path)
                if not all(isinstance(name, str) for name in names):
                    raise wrong("a list of names", path)
                return names
            case "type":
                types = nonempty(value, path) if isinstance(value, list) else [value]
                if not all(isinstance(name, str) and name in TYPES for name in types):
                    raise wrong("a type", path)
                return value
            case "$ref":
                self.references.append((path, expect(value, str, "a string", path)))
            case "format" if value not in FORMATS:
                self._cannot(f"The format {value!r}", path)
                return None
            case "pattern":
                return self._read_pattern(expect(value, str, "a string", path), path)
            case _ if keyword in REPETITIONS:
                return self._read_repetition(keyword, value, path)
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 2**53:
                    raise wrong("a number up to 2^53", path)
        return value

    def _subschema(self, value: object, path: str) -> object:
        return value if isinstance(value, bool) else self.read(value, path)

    def _read_repetition(self, keyword: str, value: object, path: str) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**31:
            raise wrong("a whole number, 0 to 2^31", path)
        if keyword in STRING_LENGTHS:
            lengths = self._lengths | {min(value, LONGEST_COUNTED)}
            if sum(lengths) > MAX_STRING_LENGTHS:
                self._cannot("One more length of strings", path)
                return None
            self._lengths = lengths
        return value

    def _read_pattern(self, pattern: str, path: str) -> str | None:
        """Patterns run as automata, in linear time; what would not fit into a small one is refused."""
        counts = [max(int(number or 0) for number in match.groups()) for match in COUNTED.finditer(pattern)]
        repetitions = math.prod(count or 1 for count in counts) if counts else 0
        self._pattern_repetitions += repetitions
        if (
            len(pattern) > MAX_PATTERN_CHARS
            or self._pattern_repetitions > MAX_PATTERN_REPETITIONS
            or RISKY.search(pattern)
        ):
            self._pattern_repetitions -= repetitions
            self._cannot("This pattern", path)
            return None
        try:
            re.compile(pattern)
        except (re.error, OverflowError) as exc:
            raise wrong("a regular expression", path) from exc
        return pattern

    def _settle(self, reduced: dict[str, Any], where: str) -> None:
        """Pairs that the decoder would take for one of the two."""
        if ("pattern" in reduced or "format" in reduced) and ("minLength" in reduced or "maxLength" in reduced):
            self._cannot("A length beside 'pattern' or 'format'", where)
            reduced.pop("minLength", None)
            reduced.pop("maxLength", None)
        for low, high in BOUNDS:
            if low in reduced and high in reduced and reduced[low] > reduced[high]:
                raise wrong(f"{low} not above {high}", where)
        self._settle_required(reduced, where)
        if "$ref" in reduced and len(reduced) > 1 + ("$defs" in reduced) + ("definitions" in reduced):
            self._cannot("A keyword beside '$ref'", where)

    def _settle_required(self, reduced: dict[str, Any], where: str) -> None:
        """The decoder writes only members that it has been told of: what is required is told."""
        others = reduced.get("additionalProperties", True)
        properties: dict[str, Any] = reduced.get("properties", {})
        untold = [name for name in reduced.get("required", ()) if name not in properties]
        if untold and others is False:
            raise wrong(f"every required name among the properties, and not {untold[0]!r} alone", f"{where}.required")
        if untold:
            reduced["properties"] = properties | dict.fromkeys(untold, {} if others is True else others)

    def _cannot(self, what: str, path: str) -> None:
        if self._strict:
            raise InvalidRequest(
                f"{what} cannot be enforced. Leave it out, or send 'strict': false to have it ignored.", param=path
            )


def deeper_than(value: object, levels: int) -> bool:
    """Whether objects and lists nest deeper than `levels`."""
    layer = [value]
    for _ in range(levels):
        layer = [
            child
            for node in layer
            if isinstance(node, Mapping | list)
            for child in (node.values() if isinstance(node, Mapping) else node)
        ]
    return any(isinstance(node, Mapping | list) for node in layer)


def flat(schema: Schema) -> Schema:
    """`allOf` with a single member, which pydantic writes around a reference, says no more than that member."""
    inner = schema.get("allOf")
    if isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], Mapping):
        return {key: value for key, value in schema.items() if key != "allOf"} | dict(inner[0])
    return schema


def check_reference(schema: Schema, reference: str, path: str) -> None:
    """Raises InvalidRequest for a reference that leads out of the schema, nowhere, or only to itself."""
    seen: set[str] = set()
    node: object = {"$ref": reference}
    while isinstance(node, Mapping) and "$ref" in node:
        reference = node["$ref"]
        if reference in seen:
            raise InvalidRequest(f"The reference {reference!r} leads to itself.", param=path)
        seen.add(reference)
        node = follow(schema, reference)
    if not isinstance(node, Mapping):
        raise InvalidRequest(f"The reference {reference!r} leads nowhere.", param=path)


def follow(schema: Schema, reference: str) -> object:
    """The place in the schema that a reference of the form `#/...` names, or None."""
    root, *steps = reference.split("/")
    node: object = schema if root == "#" else None
    for step in steps:
        name = step.replace("~1", "/").replace("~0", "~")
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def expect(value: object, kind: type[Any], name: str, path: str) -> Any:
    if not isinstance(value, kind):
        raise wrong(name, path)
    return value


def nonempty(value: object, path: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise wrong("a list with members", path)
    return value


def wrong(expected: str, path: str) -> InvalidRequest:
    return InvalidRequest(f"The JSON schema is wrong: expected {expected}.", param=path)
