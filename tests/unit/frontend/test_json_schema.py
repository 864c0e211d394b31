"""frontend/domain/json_schema.py: what is let near the engine, and what is left of it."""

from __future__ import annotations

from typing import Any

import pytest

from frontend.domain.errors import InvalidRequest
from frontend.domain.json_schema import MAX_BYTES, MAX_DEPTH, MAX_OPTIONS, MAX_PROPERTIES, Budget, enforceable


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def refused(schema: Any, *, strict: bool = True) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        enforceable(schema, "schema", Budget(), strict=strict)
    return caught.value


@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_of_many_kinds_stays_as_it_is(strict: bool) -> None:
    """What guided decoding knows is enforced; titles and descriptions are for the model only."""
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "kind": {"enum": ["a", "b", None]},
            "size": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,8}$"}, "maxItems": 3},
            "pair": {"type": "array", "prefixItems": [{"type": "number"}, {"const": 1}], "items": False},
            "when": {"type": "string", "format": "date-time"},
            "next": {"$ref": "#/$defs/node"},
        },
        "required": ["name", "next"],
        "additionalProperties": False,
        "$defs": {"node": {"type": ["object", "null"], "additionalProperties": {"type": "boolean"}}},
    }
    annotated = {
        **schema,
        "title": "Thing",
        "description": "A thing.",
        "$schema": "https://json-schema.org/draft/2020-12",
    }
    assert enforceable(annotated, "schema", Budget(), strict=strict) == schema


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"type": "number", "multipleOf": 2}, "schema.multipleOf"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems"),
        ({"oneOf": [{"type": "string"}]}, "schema.oneOf"),
        ({"not": {"type": "string"}}, "schema.not"),
        ({"type": "string", "format": "iri"}, "schema.format"),
        ({"type": "string", "pattern": "(?=a)b"}, "schema.pattern"),
        ({"type": "string", "pattern": r"(a)\1"}, "schema.pattern"),
        ({"type": "string", "pattern": "a{1,65}"}, "schema.pattern"),
        ({"type": "string", "pattern": "((a{1,16}){1,16}){1,16}"}, "schema.pattern"),
        ({"type": "string", "pattern": "a" * 257}, "schema.pattern"),
        ({"type": "string", "pattern": '"'}, "schema.pattern"),
        ({"type": "string", "pattern": r"^\\$"}, "schema.pattern"),
        ({"type": "string", "pattern": r"\t"}, "schema.pattern"),
        ({"type": "string", "pattern": "a\nb"}, "schema.pattern"),
        ({"type": "string", "pattern": "a{%s}" % ("9" * 5000)}, "schema.pattern"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "schema"),
        ({"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}]}, "schema"),
        ({"enum": ["x"], "minLength": 1}, "schema"),
        ({"allOf": [{"type": "string"}], "type": "number"}, "schema.allOf"),
        ({"required": ["b"], "additionalProperties": {"type": "null"}}, "schema.required"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {}}, "minLength": 1}, "schema"),
    ],
)
def test_what_cannot_be_enforced(schema: dict[str, Any], param: str) -> None:
    """Refused by its path when the client wants it to the letter, left out when not."""
    error = refused(schema)
    assert error.param == param
    assert "cannot be enforced" in error.message
    left = enforceable(schema, "schema", Budget(), strict=False)
    assert left != schema


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"enum": ["x" * MAX_BYTES]}, "schema"),
        (nested(MAX_DEPTH + 2), "schema"),
        ({"const": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}, "schema"),
        ({"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES + 1)}}, "schema.properties"),
        ({"anyOf": [{}] * (MAX_OPTIONS + 1)}, "schema.anyOf"),
        ({"type": "strin"}, "schema.type"),
        ({"type": []}, "schema.type"),
        ({"type": [3]}, "schema.type"),
        ({"properties": []}, "schema.properties"),
        ({"properties": {"a": 3}}, "schema.properties.a"),
        ({"required": [1]}, "schema.required"),
        ({"enum": []}, "schema.enum"),
        ({"anyOf": []}, "schema.anyOf"),
        ({"$ref": "#/$defs/none"}, "schema.$ref"),
        ({"$ref": "https://example.com/schema.json"}, "schema.$ref"),
        ({"$ref": "#"}, "schema.$ref"),
        (
            {"properties": {"a": {"const": {"maxLength": 9}}, "b": {"$ref": "#/properties/a/const"}}},
            "schema.properties.b.$ref",
        ),
        ({"properties": {"$ref": {}, "a": {"$ref": "#/properties"}}}, "schema.properties.a.$ref"),
        ({"type": "string", "format": []}, "schema.format"),
        ({"type": "string", "format": {}}, "schema.format"),
        ({"type": "integer", "enum": ["a"]}, "schema"),
        ({"type": "string", "maxLength": 2**31}, "schema.maxLength"),
        ({"type": "object", "required": [f"p{i}" for i in range(MAX_PROPERTIES + 1)]}, "schema.required"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "schema.$ref"),
        ({"required": ["a"], "additionalProperties": False}, "schema.required"),
        ({"type": "string", "maxLength": -1}, "schema.maxLength"),
        ({"type": "string", "maxLength": True}, "schema.maxLength"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "schema"),
        ({"type": "integer", "minimum": 2**60}, "schema.minimum"),
        ({"type": "string", "pattern": "("}, "schema.pattern"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_wrong_or_too_large_is_always_refused(schema: dict[str, Any], param: str, strict: bool) -> None:
    """With the path of what is wrong."""
    assert refused(schema, strict=strict).param == param


def test_different_lengths_are_counted_over_the_whole_schema() -> None:
    """Each costs the grammar's compiler time, the same one twice does not; what is too much is left out if it may be."""

    def schema(*lengths: int) -> dict[str, Any]:
        return {"properties": {f"p{i}": {"type": "string", "maxLength": n} for i, n in enumerate(lengths)}}

    for fine in ([200] * 50, [10_000, 20_000, 30_000], [250, 251, 252]):
        assert enforceable(schema(*fine), "schema", Budget(), strict=True) == {"type": "object", **schema(*fine)}
    assert refused(schema(250, 251, 252, 253)).param == "schema.properties.p3.maxLength"
    left = enforceable(schema(250, 251, 252, 253), "schema", Budget(), strict=False)
    assert left["properties"]["p3"] == {"type": "string"}


def test_what_is_required_is_told() -> None:
    """A required member that the properties do not name is one of any kind."""
    schema = {"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "null"}}}
    assert enforceable(schema, "schema", Budget(), strict=True)["properties"] == {"a": {"type": "null"}, "b": {}}


def test_a_request_has_one_budget() -> None:
    """What many small schemas cost together counts, for they are compiled together."""
    budget = Budget()
    for length in (250, 251, 252):
        enforceable({"type": "string", "maxLength": length}, "schema", budget, strict=True)
    with pytest.raises(InvalidRequest, match="One more length"):
        enforceable({"type": "string", "maxLength": 253}, "schema", budget, strict=True)
    large = {"const": "x" * (MAX_BYTES - 12)}
    for _ in range(3):
        enforceable(large, "schema", budget, strict=True)
    with pytest.raises(InvalidRequest, match="bytes in all"):
        enforceable(large, "schema", budget, strict=True)


def test_a_reduced_schema_does_not_outgrow_its_bounds() -> None:
    """Nested objects whose required names are told by no property: refused, not multiplied."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(4):
        schema = {"type": "object", "required": [f"n{i}" for i in range(100)], "additionalProperties": schema}
    assert refused(schema).param is not None


@pytest.mark.parametrize(
    ("schema", "enforced"),
    [
        ({"minimum": 5}, {"type": "number", "minimum": 5}),
        ({"maxLength": 2}, {"type": "string", "maxLength": 2}),
        ({"type": "integer", "enum": ["a", 1, True]}, {"enum": [1]}),
        ({"type": ["string", "null"], "const": None}, {"const": None}),
    ],
)
def test_what_is_implied_is_said(schema: dict[str, Any], enforced: dict[str, Any]) -> None:
    """The decoder would ignore a bound without a type, and values of another one."""
    assert enforceable(schema, "schema", Budget(), strict=True) == enforced


def test_all_of_one_is_that_one() -> None:
    """As pydantic writes a reference with a description."""
    schema = {
        "properties": {"a": {"allOf": [{"$ref": "#/$defs/A"}], "description": "An A."}},
        "$defs": {"A": {"type": "null"}},
    }
    assert enforceable(schema, "schema", Budget(), strict=True)["properties"] == {"a": {"$ref": "#/$defs/A"}}


@pytest.mark.parametrize("schema", ["text", [1], None])
def test_a_schema_is_an_object(schema: object) -> None:
    """Anything else is none."""
    assert refused(schema).param == "schema"
