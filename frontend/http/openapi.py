"""The OpenAPI page: Litestar's, with the schemas that bodies are really checked by, and the failures that each route has.

Litestar (2.25) makes schemas of its own from structs, and they say less than msgspec checks: a bound of 0 is dropped, so
is every bound inside a list, a union or an object, and that unknown fields are refused. msgspec writes its own schemas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    PathItem,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.plugins import OpenAPISchemaPlugin
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from frontend.http.auth import ANY_KEY, is_public
from frontend.http.errors import RESPONSES, ErrorEnvelope
from frontend.observability import build

REFERENCE = "#/components/schemas/{name}"
EVENT = Schema(
    type=OpenAPIType.OBJECT,
    description="Each event's `data` is a chunk, an error in its envelope, or [DONE].",
    properties={"data": Schema(type=OpenAPIType.STRING, content_media_type="application/json")},
)


class StructReference(Schema):
    """A reference in a schema's clothes: Litestar looks bare ones up in its own registry, which does not know ours, and
    puts random examples beside the rest."""

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        super().__init__()
        self._target = REFERENCE.format(name=struct.__name__)

    def to_schema(self) -> dict[str, Any]:
        return {"$ref": self._target}


class StructSchemas(OpenAPISchemaPlugin):
    """Answers Litestar's question for a struct's schema with a reference, and remembers what it was asked for."""

    def __init__(self) -> None:
        self._asked: dict[str, type[msgspec.Struct]] = {ErrorEnvelope.__name__: ErrorEnvelope}

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        return not field_definition.is_union and field_definition.is_subclass_of(msgspec.Struct)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: object) -> Schema:
        return self.reference(field_definition.annotation)

    def reference(self, struct: type[msgspec.Struct]) -> StructReference:
        """Raises ValueError if another body has its name."""
        if self._asked.setdefault(struct.__name__, struct) is not struct:
            raise ValueError(f"two bodies are called {struct.__name__}; the page needs a name for each")
        return StructReference(struct)

    def components(self) -> dict[str, Any]:
        """The schemas of all that was asked for, and of what they are made of."""
        _, schemas = msgspec.json.schema_components(self._asked.values(), ref_template=REFERENCE)
        return schemas


def form_of(struct: type[msgspec.Struct]) -> type[Operation]:
    """The operation of a handler that reads a form by itself (frontend/http/multipart.py); `struct`: its fields."""

    @dataclass
    class FormOperation(Operation):
        form: ClassVar[type[msgspec.Struct]] = struct

        def __post_init__(self) -> None:
            media = OpenAPIMediaType(schema=StructReference(struct))
            self.request_body = RequestBody(content={"multipart/form-data": media}, required=True)

    return FormOperation


def config() -> OpenAPIConfig:
    bearer = SecurityScheme(type="http", scheme="bearer", description="Authorization: Bearer KEY")
    return OpenAPIConfig(
        title="Hermes-2 service",
        version=build.VERSION,
        description="The OpenAI API of a self-hosted Hermes-2.",
        components=Components(security_schemes={"bearer": bearer}),
        security=[{"bearer": []}],
        use_handler_docstrings=True,
        create_examples=False,
        # The JSON alone: Litestar's pages load scripts from other servers, and could not send the key that it takes.
        render_plugins=[JsonRenderPlugin()],
        openapi_router=Router("/schema", route_handlers=[], opt=ANY_KEY, include_in_schema=False),
    )


def complete(app: Litestar, schemas: StructSchemas) -> None:
    """Puts into the page what Litestar does not know. Raises ValueError if two bodies have the same name."""
    page = app.openapi_schema
    assert page.components is not None
    assert page.paths is not None
    for route in app.routes:
        if isinstance(route, HTTPRoute) and (item := page.paths.get(route.path_format)):
            for method, (handler, _) in route.route_handler_map.items():
                if form := getattr(handler.operation_class, "form", None):
                    schemas.reference(form)
                if operation := operation_of(item, method):
                    add_failures(operation, method, public=is_public(handler))
                    if may_stream(handler):
                        add_stream(operation)
    page.components.schemas = schemas.components()


def operation_of(item: PathItem, method: str) -> Operation | None:
    operation: Operation | None = getattr(item, method.lower(), None)
    return operation


OF_ALL = (401, 403, 429, 503)
OF_POSTS = (400, 409, 422)
"""Idempotency-Key's, on every POST."""


def add_failures(operation: Operation, method: str, *, public: bool) -> None:
    """What every route may answer unless it is public, and our own 400 where Litestar announces one of its making."""
    assert operation.responses is not None
    if public:
        operation.security = []
    else:
        for status in (*OF_ALL, *(OF_POSTS if method.upper() == "POST" else ())):
            operation.responses.setdefault(str(status), failure(status))
    if "400" in operation.responses:
        operation.responses["400"] = failure(400)


def may_stream(handler: HTTPRouteHandler) -> bool:
    """A body with a field `stream` says for itself whether its answer is JSON or server-sent events."""
    data = handler.parsed_fn_signature.parameters.get("data")
    return data is not None and "stream" in getattr(data.annotation, "__struct_fields__", ())


def add_stream(operation: Operation) -> None:
    assert operation.responses is not None
    success = operation.responses["200"]
    assert isinstance(success, OpenAPIResponse)
    assert success.content is not None
    success.content["text/event-stream"] = OpenAPIMediaType(schema=EVENT)


def failure(status: int) -> OpenAPIResponse:
    return OpenAPIResponse(
        RESPONSES[status].description,
        content={"application/json": OpenAPIMediaType(schema=StructReference(ErrorEnvelope))},
    )
