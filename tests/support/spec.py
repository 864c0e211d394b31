"""Validation against OpenAI's own specification."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator


def validator(spec: dict[str, Any], name: str) -> Draft202012Validator:
    """For one schema of the specification's components."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": json_schema(spec["components"])})


def json_schema(node: Any) -> Any:
    """OpenAPI 3.0's `nullable`, which the specification still uses in places, as JSON schema."""
    if isinstance(node, list):
        return [json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    converted = {key: json_schema(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [converted, {"type": "null"}]} if node.get("nullable") is True else converted
