"""frontend/domain/json_schema.py: what is let near the engine, and what is left of it."""

from __future__ import annotations

from typing import Any

import pytest

from frontend.domain.errors import InvalidRequest
from frontend.domain.json_schema import MAX_BYTES, MAX_DEPTH, MAX_OPTIONS, MAX_PROPERTIES, enforceable


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def refused(schema: Any, *, strict: bool = True) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        enforceable(schema, "schema", strict=strict)
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
    assert enforceable(annotated, "schema", strict=strict) == schema


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
        ({"type": "string", "pattern": "a", "maxLength": 3}, "schema"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {}}, "minLength": 1}, "schema"),
    ],
)
def test_what_cannot_be_enforced(schema: dict[str, Any], param: str) -> None:
    """Refused by its path when the client wants it to the letter, left out when not."""
    error = refused(schema)
    assert error.param == param
    assert "cannot be enforced" in error.message
    left = enforceable(schema, "schema", strict=False)
    assert len(left) < len(schema) or "$ref" in left


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

    for fine in ([200] * 50, [10_000, 20_000, 30_000], [250, 251, 252, 253]):
        assert enforceable(schema(*fine), "schema", strict=True) == schema(*fine)
    assert refused(schema(250, 251, 252, 253, 254)).param == "schema.properties.p4.maxLength"
    left = enforceable(schema(250, 251, 252, 253, 254), "schema", strict=False)
    assert left["properties"]["p4"] == {"type": "string"}


def test_what_is_required_is_told() -> None:
    """A required member that the properties do not name is one of any kind, or of that of the others."""
    schema = {"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "null"}}}
    assert enforceable(schema, "schema", strict=True)["properties"] == {"a": {"type": "null"}, "b": {}}
    others = {"required": ["b"], "additionalProperties": {"type": "null"}}
    assert enforceable(others, "schema", strict=True)["properties"] == {"b": {"type": "null"}}


def test_all_of_one_is_that_one() -> None:
    """As pydantic writes a reference with a description."""
    schema = {
        "properties": {"a": {"allOf": [{"$ref": "#/$defs/A"}], "description": "An A."}},
        "$defs": {"A": {"type": "null"}},
    }
    assert enforceable(schema, "schema", strict=True)["properties"] == {"a": {"$ref": "#/$defs/A"}}


@pytest.mark.parametrize("schema", ["text", [1], None])
def test_a_schema_is_an_object(schema: object) -> None:
    """Anything else is none."""
    assert refused(schema).param == "schema"
