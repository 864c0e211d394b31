"""JSON schemas that clients send: bounded, and reduced to what guided decoding holds a reply to.

A schema is compiled inside the shared engine, so its cost is bounded here before it comes near: by size, depth, counted
repetitions, properties and the shape of patterns. The worst schemas that pass cost xgrammar 0.2.8 about 3 s, once,
beside the engine's loop, and 3 ms a token (tests/integration/test_structured_output.py). What it would silently ignore
is refused for `strict`, and left out otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from frontend.domain.errors import InvalidRequest

Schema = Mapping[str, Any]

MAX_BYTES = 16 * 1024
MAX_DEPTH = 16
MAX_PROPERTIES = 128
"""Of one schema; optional ones cost quadratically."""
MAX_OPTIONS = 64
"""Members of anyOf in one schema; those that begin alike are followed side by side."""
MAX_REQUEST_BYTES = 64 * 1024
MAX_STRING_LENGTHS = 768
"""Sum of the different lengths of strings in one request, each as 256 at most. xgrammar spends 4 ms on each unit (and next
to nothing on a length that it has seen, or on the lengths of lists): 39 different ones around 250 cost it 24 s."""
LONGEST_COUNTED = 256
MAX_PATTERN_CHARS = 256
MAX_PATTERN_REPETITIONS = 64
"""Over all patterns of one request, nested ones multiplied. xgrammar 0.2.8 fails on a single count beyond 128."""
MAX_COUNT = 2**31 - 1

ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment"),
    )
)
"""They say something to people and to the model, and nothing to the decoder."""
DEFINITIONS = frozenset(("$defs", "definitions"))
OF_TYPE = {
    "object": frozenset(("properties", "required", "additionalProperties", "minProperties", "maxProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("pattern", "format", "minLength", "maxLength")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
}
"""Keywords that say something about values of one type. Without a `type` they imply it: stricter, and never wrong."""
ENFORCED = frozenset(("type", "enum", "const", "anyOf", "$ref", *DEFINITIONS)).union(*OF_TYPE.values())
COUNTS = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
STRING_LENGTHS = frozenset(("minLength", "maxLength"))
BOUNDS = (
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)
TYPES: Mapping[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}
FORMATS = frozenset(("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri"))
RISKY = re.compile(r"""\(\?|\\[0-9bBpPkuxcAzZGtnrfv\\]|"|[\x00-\x1f]""")
"""Lookarounds, back references and their kin: not regular, or not known to the decoder's automata. And what JSON would have to
escape in a string: xgrammar 0.2.8 writes it as it is."""
COUNTED = re.compile(r"\{(\d{0,6}),?(\d{0,6})\}")


class Budget:
    """What the schemas of one request have cost so far: they are compiled into one grammar."""

    def __init__(self) -> None:
        self.lengths: frozenset[int] = frozenset()
        self.pattern_repetitions = 0
        self.bytes = 0


def enforceable(schema: Schema, where: str, budget: Budget, *, strict: bool) -> dict[str, Any]:
    """The schema that a reply is held to. `where`: the parameter's path, for errors.

    Raises InvalidRequest for a schema beyond the bounds, for one that is none, and with `strict` for one that asks
    for more than guided decoding can promise.
    """
    size = len(msgspec.json.encode(schema))
    budget.bytes += size
    if size > MAX_BYTES:
        raise InvalidRequest(f"The JSON schema has {size} bytes; at most {MAX_BYTES} are taken.", param=where)
    if budget.bytes > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"The JSON schemas have more than {MAX_REQUEST_BYTES} bytes in all.", param=where)
    if deeper_than(schema, 2 * MAX_DEPTH):
        raise InvalidRequest(f"The JSON schema is nested more than {MAX_DEPTH} levels deep.", param=where)
    reader = Reader(budget, strict)
    reduced = reader.read(schema, where, "#")
    for path, reference in reader.references:
        reader.check_reference(reference, path)
    return reduced


class Reader:
    """Walks one schema once."""

    def __init__(self, budget: Budget, strict: bool) -> None:
        self.references: list[tuple[str, str]] = []
        self._places: dict[str, dict[str, Any]] = {}
        """Every schema inside, by its JSON pointer: what a reference may lead to."""
        self._budget = budget
        self._strict = strict
        self._properties = 0
        self._options = 0

    def read(self, schema: object, where: str, place: str) -> dict[str, Any]:
        if not isinstance(schema, Mapping):
            raise InvalidRequest("A JSON schema must be an object.", param=where)
        reduced: dict[str, Any] = {}
        self._places[place] = reduced
        for keyword, value in flat(schema).items():
            path = f"{where}.{keyword}"
            if keyword in ANNOTATIONS:
                continue
            if keyword not in ENFORCED:
                self._cannot(f"The keyword {keyword!r}", path)
                continue
            kept = self._read_keyword(keyword, value, path, f"{place}/{keyword}")
            if kept is not None or keyword == "const":
                reduced[keyword] = kept
        self._settle(reduced, where)
        return reduced

    def _read_keyword(self, keyword: str, value: object, path: str, place: str) -> object:
        """The value to enforce, or None to leave the keyword out."""
        match keyword:
            case "properties" | "$defs" | "definitions":
                members = expect(value, Mapping, "an object", path)
                self._count_properties(len(members), path)
                return {
                    name: self._subschema(member, f"{path}.{name}", f"{place}/{escaped(name)}")
                    for name, member in members.items()
                }
            case "items" | "additionalProperties":
                return self._subschema(value, path, place)
            case "anyOf" | "prefixItems":
                options = nonempty(value, path)
                self._options += len(options)
                if self._options > MAX_OPTIONS:
                    raise InvalidRequest(f"The JSON schema has more than {MAX_OPTIONS} options in all.", param=path)
                return [self._subschema(option, f"{path}[{i}]", f"{place}/{i}") for i, option in enumerate(options)]
            case "enum":
                return nonempty(value, path)
            case "required":
                names = expect(value, list, "a list of names", path)
                if not all(isinstance(name, str) for name in names):
                    raise wrong("a list of names", path)
                return list(dict.fromkeys(names))
            case "type":
                types = nonempty(value, path) if isinstance(value, list) else [value]
                if not all(isinstance(name, str) and name in TYPES for name in types):
                    raise wrong("a type", path)
            case "$ref":
                self.references.append((path, expect(value, str, "a string", path)))
            case "format":
                if expect(value, str, "a string", path) not in FORMATS:
                    self._cannot(f"The format {value!r}", path)
                    return None
            case "pattern":
                return self._read_pattern(expect(value, str, "a string", path), path)
            case _ if keyword in COUNTS:
                return self._read_count(keyword, value, path)
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 2**53:
                    raise wrong("a number up to 2^53", path)
        return value

    def _subschema(self, value: object, path: str, place: str) -> object:
        return value if isinstance(value, bool) else self.read(value, path, place)

    def _count_properties(self, more: int, path: str) -> None:
        self._properties += more
        if self._properties > MAX_PROPERTIES:
            raise InvalidRequest(
                f"The JSON schema has more than {MAX_PROPERTIES} properties and definitions in all.", param=path
            )

    def _read_count(self, keyword: str, value: object, path: str) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
            raise wrong("a whole number, 0 to 2^31 - 1", path)
        if keyword in STRING_LENGTHS:
            lengths = self._budget.lengths | {min(value, LONGEST_COUNTED)}
            if sum(lengths) > MAX_STRING_LENGTHS:
                self._cannot("One more length of strings", path)
                return None
            self._budget.lengths = lengths
        return value

    def _read_pattern(self, pattern: str, path: str) -> str | None:
        """Patterns run as automata, in linear time; what would not fit into a small one is refused."""
        if len(pattern) > MAX_PATTERN_CHARS or RISKY.search(pattern):
            self._cannot("This pattern", path)
            return None
        try:
            re.compile(pattern)
        except (re.error, OverflowError) as exc:
            raise wrong("a regular expression", path) from exc
        counts = [max(int(number or 0) for number in match.groups()) for match in COUNTED.finditer(pattern)]
        repetitions = math.prod(count or 1 for count in counts) if counts else 0
        if self._budget.pattern_repetitions + repetitions > MAX_PATTERN_REPETITIONS:
            self._cannot("This pattern", path)
            return None
        self._budget.pattern_repetitions += repetitions
        return pattern

    def _settle(self, reduced: dict[str, Any], where: str) -> None:
        """Combinations of which the decoder would follow one part only: refused, or reduced to that which says most."""
        self._settle_alternatives(reduced, where)
        self._settle_type(reduced)
        if ("pattern" in reduced or "format" in reduced) and STRING_LENGTHS & reduced.keys():
            self._cannot("A length beside 'pattern' or 'format'", where)
            leave_out(reduced, STRING_LENGTHS)
        for low, high in BOUNDS:
            if low in reduced and high in reduced and reduced[low] > reduced[high]:
                raise wrong(f"{low} not above {high}", where)
        self._settle_required(reduced, where)

    def _settle_alternatives(self, reduced: dict[str, Any], where: str) -> None:
        for word in ("$ref", "const", "enum"):
            if word in reduced:
                beside = reduced.keys() - DEFINITIONS - {word, "type"}
                if beside:
                    self._cannot(f"A keyword beside {word!r}", where)
                    leave_out(reduced, beside)
                if word == "$ref":
                    reduced.pop("type", None)
                elif "type" in reduced:
                    fit_type(reduced, word, where)
                return
        if "anyOf" in reduced and (beside := reduced.keys() - DEFINITIONS - {"anyOf"}):
            self._cannot("A keyword beside 'anyOf'", where)
            leave_out(reduced, {"anyOf"} if beside != {"type"} else beside)

    def _settle_type(self, reduced: dict[str, Any]) -> None:
        if "type" not in reduced:
            implied = [name for name, keywords in OF_TYPE.items() if keywords & reduced.keys()]
            if implied:
                reduced["type"] = implied[0] if len(implied) == 1 else implied

    def _settle_required(self, reduced: dict[str, Any], where: str) -> None:
        """The decoder writes only members that it has been told of: what is required is told."""
        others = reduced.get("additionalProperties", True)
        properties: dict[str, Any] = reduced.get("properties", {})
        untold = [name for name in reduced.get("required", ()) if name not in properties]
        if not untold:
            return
        if others is False:
            raise wrong(f"every required name among the properties, and not {untold[0]!r} alone", f"{where}.required")
        self._count_properties(len(untold), f"{where}.required")
        if others is True:
            reduced["properties"] = properties | {name: {} for name in untold}
        else:
            self._cannot("A required name that is not among the properties", f"{where}.required")
            reduced["required"] = [name for name in reduced["required"] if name in properties]

    def check_reference(self, reference: str, path: str) -> None:
        """Raises InvalidRequest for a reference that leads to no schema inside, or only to itself."""
        seen: set[str] = set()
        while reference not in seen:
            seen.add(reference)
            node = self._places.get(reference)
            if node is None:
                raise InvalidRequest(f"The reference {reference!r} leads to no schema in this one.", param=path)
            if "$ref" not in node:
                return
            reference = node["$ref"]
        raise InvalidRequest(f"The reference {reference!r} leads to itself.", param=path)

    def _cannot(self, what: str, path: str) -> None:
        if self._strict:
            raise InvalidRequest(
                f"{what} cannot be enforced. Leave it out, or send 'strict': false to have it ignored.", param=path
            )


def fit_type(reduced: dict[str, Any], word: str, where: str) -> None:
    """`enum` and `const` say it all: of their values those of the type stay, and the type goes."""
    types = reduced.pop("type")
    checks = [TYPES[name] for name in (types if isinstance(types, list) else [types])]
    values = [
        value for value in (reduced["enum"] if word == "enum" else [reduced["const"]]) if any(c(value) for c in checks)
    ]
    if not values:
        raise wrong(f"a value of the type in {word}", where)
    if word == "enum":
        reduced["enum"] = values


def leave_out(reduced: dict[str, Any], keywords: Iterable[str]) -> None:
    for keyword in keywords:
        reduced.pop(keyword, None)


def escaped(name: str) -> str:
    """As a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


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
    if not (isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], Mapping)):
        return schema
    outer = {key: value for key, value in schema.items() if key != "allOf"}
    said_twice = outer.keys() & inner[0].keys() - ANNOTATIONS
    return schema if said_twice else outer | dict(inner[0])


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
