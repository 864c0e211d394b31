"""The one table from the service's errors to HTTP, and the OpenAI envelope that every failure leaves in.

{"error": {"message", "type", "param", "code"}}
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException

from frontend.domain import errors
from frontend.http.answers import answer

log = structlog.get_logger("hermes2.http")

TABLE: Mapping[type[errors.ServiceError], tuple[int, str]] = {
    errors.TooLarge: (413, "invalid_request_error"),
    errors.InvalidRequest: (400, "invalid_request_error"),
    errors.Unauthenticated: (401, "invalid_request_error"),
    errors.Forbidden: (403, "invalid_request_error"),
    errors.NotFound: (404, "invalid_request_error"),
    errors.InProgress: (409, "invalid_request_error"),
    errors.KeyReused: (422, "invalid_request_error"),
    errors.RateLimited: (429, "rate_limit_error"),
    errors.Unavailable: (503, "server_error"),
    errors.Timeout: (504, "server_error"),
    errors.Internal: (500, "server_error"),
}
"""The nearest class of the tree counts: ContextLengthExceeded is answered as InvalidRequest."""


class ErrorBody(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    error: ErrorBody


RESPONSES = {
    400: answer(ErrorEnvelope, description="The request is wrong; `param` names what."),
    401: answer(ErrorEnvelope, description="No key, or one that is not known."),
    403: answer(ErrorEnvelope, description="A key that lacks the scope of the route."),
    404: answer(ErrorEnvelope, description="No such model."),
    409: answer(ErrorEnvelope, description="A request with the same Idempotency-Key is being worked on."),
    413: answer(ErrorEnvelope, description="The body is too large."),
    422: answer(ErrorEnvelope, description="The same Idempotency-Key came with another request."),
    429: answer(
        ErrorEnvelope, description="The key's or the tenant's share is used up; `retry-after` says until when."
    ),
    503: answer(ErrorEnvelope, description="The engine is away or full; `retry-after` says for how long."),
    504: answer(ErrorEnvelope, description="The generation took longer than a request may."),
}
"""What the OpenAPI page says of failures."""


def status_of(error: errors.ServiceError) -> tuple[int, str]:
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return 500, "server_error"


def envelope(error: errors.ServiceError) -> ErrorEnvelope:
    return ErrorEnvelope(ErrorBody(error.message, status_of(error)[1], error.param, error.code))


def headers(error: errors.ServiceError) -> dict[str, str]:
    if isinstance(error, errors.Unavailable | errors.InProgress):
        return retry_after(error.retry_after_s)
    if isinstance(error, errors.RateLimited):
        return {"x-should-retry": "false"} if error.retry_after_s is None else retry_after(error.retry_after_s)
    if isinstance(error, errors.ConversationLocked):  # a 400 that the SDKs try again
        return {"x-should-retry": "true", "retry-after-ms": str(int(error.retry_after_s * 1e3))}
    if isinstance(error, errors.Unauthenticated):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, MethodNotAllowed):
        return {"allow": error.allowed}
    return {}


def retry_after(seconds: float) -> dict[str, str]:
    """Never less than it is."""
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1e3))}


def to_service_error(exc: Exception) -> errors.ServiceError:
    """Whatever reached the edge, as an error of the tree."""
    if isinstance(exc, errors.ServiceError):
        return exc
    if isinstance(exc, msgspec.ValidationError):
        return invalid_body(str(exc))
    if isinstance(exc, msgspec.DecodeError):
        return errors.InvalidRequest(f"The body is not valid JSON: {exc}.", code="invalid_json")
    if isinstance(exc, NotFoundException):
        return errors.NotFound("There is no such route.", code="unknown_url")
    if isinstance(exc, MethodNotAllowedException):
        return MethodNotAllowed((exc.headers or {}).get("allow", ""))
    if isinstance(exc, ValidationException) and lacks_body(exc):
        return errors.InvalidRequest("The request has no body; a JSON object was expected.", code="invalid_json")
    if isinstance(exc, ValidationException) and (wrong := wrong_parameter(exc)) is not None:
        return wrong
    if isinstance(exc, HTTPException) and exc.status_code == 413:
        return errors.TooLarge(f"The body is too large: {exc.detail}.")
    if isinstance(exc, HTTPException) and exc.status_code < 500:
        return errors.InvalidRequest(str(exc.detail))
    log.error("unexpected_error", exc_info=exc)
    return errors.Internal("The service failed unexpectedly; its log has the request id.")


class MethodNotAllowed(errors.ServiceError):
    """HTTP's own: the domain has no methods."""

    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__("The route does not take this method.")
        self.allowed = allowed


TABLE = {**TABLE, MethodNotAllowed: (405, "invalid_request_error")}


def lacks_body(exc: ValidationException) -> bool:
    """Litestar tells what it misses by the handler's own names; that of a body is `data`."""
    return any(each.get("key") == "data" for each in complaints(exc))


def wrong_parameter(exc: ValidationException) -> errors.InvalidRequest | None:
    """The first parameter of the query, of a header or of the path that Litestar complains of."""
    for each in complaints(exc):
        if name := each.get("key"):
            what = str(each.get("message", "it is wrong"))
            return errors.InvalidRequest(f"Invalid value for '{name}': {what[:1].lower()}{what[1:]}.", param=name)
    return None


def complaints(exc: ValidationException) -> list[dict[str, Any]]:
    return [each for each in exc.extra if isinstance(each, dict)] if isinstance(exc.extra, list) else []


def invalid_body(message: str) -> errors.InvalidRequest:
    """msgspec's "Expected `int` - at `$.messages[0].content`" as a message and the parameter's path.

    Its other forms of a place: `$.metadata[...]` (a value of an object), `key` in `$.logit_bias`.
    """
    match = re.fullmatch(r"(.*?)(?: - at (?:`key` in )?`\$\.?(.*?)(?:\[\.\.\.\])?`)?", message, re.DOTALL)
    assert match is not None
    what, path = match[1], match[2] or None
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        name = f"{path}.{unknown[1]}" if path else unknown[1]
        return errors.InvalidRequest(
            f"Unrecognized request argument supplied: {name}", param=name, code="unknown_parameter"
        )
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        name = f"{path}.{missing[1]}" if path else missing[1]
        return errors.InvalidRequest(
            f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
        )
    where = f"Invalid value for '{path}': " if path else "Invalid body: "
    return errors.InvalidRequest(f"{where}{what[:1].lower()}{what[1:]}.", param=path)


def handle(request: Request[Any, Any, Any], exc: Exception) -> Response[ErrorEnvelope]:
    """Litestar's exception handler for everything."""
    error = to_service_error(exc)
    request.scope.setdefault("state", {})["error_code"] = error.code
    return Response(
        envelope(error), status_code=status_of(error)[0], headers=headers(error), media_type="application/json"
    )
