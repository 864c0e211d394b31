"""frontend.http.openapi: the page says what the service checks and answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.typing import FieldDefinition

from frontend import settings
from frontend.app import create_app
from frontend.http.openapi import StructSchemas
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return create_app(settings.load({})).openapi_schema.to_schema()


def operations(page: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{method} {path}": operation for path, item in page["paths"].items() for method, operation in item.items()}


def test_every_reference_leads_somewhere(page: dict[str, Any]) -> None:
    """It is JSON, and each `$ref` names a schema of the page."""
    named = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(page)))
    assert named
    assert named <= page["components"]["schemas"].keys()


def test_bounds_are_those_that_are_checked(page: dict[str, Any]) -> None:
    """A bound of 0, and bounds inside unions, lists and objects, all of which Litestar's own schemas lose."""
    fields = page["components"]["schemas"]["CreateChatCompletion"]["properties"]
    assert fields["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}
    assert fields["stop"]["anyOf"][1]["maxItems"] == 4
    assert fields["stop"]["anyOf"][1]["items"] == {"type": "string", "minLength": 1, "maxLength": 64}
    assert fields["logit_bias"]["anyOf"][0]["additionalProperties"] == {
        "type": "number",
        "minimum": -100,
        "maximum": 100,
    }


def test_unknown_fields_are_said_to_be_refused(page: dict[str, Any]) -> None:
    """Of every body that is sent."""
    for name, operation in operations(page).items():
        if body := operation.get("requestBody"):
            (content,) = body["content"].values()
            struct = content["schema"]["$ref"].rsplit("/", 1)[1]
            assert page["components"]["schemas"][struct]["additionalProperties"] is False, name


def test_only_public_routes_go_without_a_key(page: dict[str, Any]) -> None:
    """The probes say that they need none; every other route says what it answers without one."""
    public = {name for name, operation in operations(page).items() if operation.get("security") == []}
    assert public == {"get /health/live", "get /health/ready", "get /health/startup"}
    assert public == {name for name, operation in operations(page).items() if "401" not in operation["responses"]}


def test_failures_come_in_our_envelope(page: dict[str, Any]) -> None:
    """400, where Litestar announces one of its own making, and 401."""
    for operation in operations(page).values():
        for status in {"400", "401"} & operation["responses"].keys():
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}


def test_what_may_be_streamed_says_so(page: dict[str, Any]) -> None:
    """Where the body has a field `stream`, and nowhere else."""
    streamed = {
        name
        for name, operation in operations(page).items()
        if "text/event-stream" in operation["responses"]["200"].get("content", {})
    }
    assert streamed == {"post /v1/chat/completions", "post /v1/completions", "post /v1/responses"}


def test_bodies_of_one_name_are_refused() -> None:
    """Two structs of one name would share a schema; the second stops the start."""
    schemas = StructSchemas()
    first, second = (FieldDefinition.from_annotation(msgspec.defstruct("Same", ["a"])) for _ in range(2))
    schemas.to_openapi_schema(first, None)
    schemas.to_openapi_schema(first, None)
    with pytest.raises(ValueError, match="Same"):
        schemas.to_openapi_schema(second, None)


async def test_options_name_every_method(smollm2: Path) -> None:
    """Of a path, not of the handler that was registered first."""
    async with client_for(FakeEngine(), smollm2) as client:
        for path, methods in {
            "/v1/responses/resp_1": "DELETE, GET, OPTIONS",
            "/v1/conversations/conv_1": "DELETE, GET, OPTIONS, POST",
            "/v1/chat/completions": "GET, OPTIONS, POST",
            "/v1/models": "GET, OPTIONS",
        }.items():
            assert (await client.options(path)).headers["allow"] == methods
