"""The span of each request, around everything that answers it until its last byte has left.

Our own, and not OpenTelemetry's ASGI instrumentation: the route is known when Litestar has found it, which is after a span
has got its name there; it would not know of the token counts, and cost something where nothing is exported.
"""

from __future__ import annotations

from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from frontend.domain.record import Record
from frontend.http.access_log import METHODS
from frontend.http.trace_context import from_client
from frontend.observability import tracing

QUIET = ("/health", "/metrics")
"""Asked every few seconds, by machines: no spans."""
IDS = ("request_id", "tenant", "key_id")


class Tracing:
    """Inside AccessLog, whose line has the `trace_id` that is put into the request's state here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        traceparent, tracestate = from_client(scope["headers"])
        if not tracing.is_on() or scope["path"].startswith(QUIET):
            if traceparent is not None:
                place(scope, traceparent)
            await self._app(scope, receive, send)
            return
        await self._traced(scope, receive, send, traceparent, tracestate)

    async def _traced(
        self, scope: HTTPScope, receive: Receive, send: Send, traceparent: str | None, tracestate: str
    ) -> None:
        method = scope["method"] if scope["method"] in METHODS else "HTTP"
        span = tracing.server_span(method, traceparent, tracestate)
        assert span.traceparent is not None
        place(scope, span.traceparent)
        status = 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with span:
            try:
                await self._app(scope, receive, send_noting if span.recording else send)
            finally:
                if span.recording:
                    describe(span, scope, method, scope["state"].get("status", status))


def place(scope: HTTPScope, traceparent: str) -> None:
    """For the log's line, and for what goes to the engine."""
    state: dict[str, Any] = scope.setdefault("state", {})
    state["traceparent"] = traceparent
    state["trace_id"] = traceparent[3:35]


def describe(span: tracing.Span, scope: HTTPScope, method: str, status: int) -> None:
    """With the names of OpenTelemetry's conventions for HTTP and generative AI, as far as they have one."""
    state, route = scope["state"], scope.get("path_template")
    span.rename(f"{method} {route}" if route else method)
    span.set("http.request.method", method if method in METHODS else "_OTHER")
    span.set("http.response.status_code", status)
    span.set("url.scheme", scope["scheme"])
    if route:
        span.set("http.route", route)
    if status >= 400:
        span.set("error.type", state.get("error_code") or str(status))
    if status >= 500:
        span.broken()
    for name in IDS:
        if (value := state.get(name)) is not None:
            span.set(f"hermes2.{name}", value)
    if (record := state.get("record")) is not None:
        note(span, record)


def note(span: tracing.Span, record: Record) -> None:
    """What generations and embeddings have used."""
    for name, value in (
        ("gen_ai.response.model", record.model),
        ("gen_ai.usage.input_tokens", record.prompt_tokens),
        ("gen_ai.usage.cache_read.input_tokens", record.cached_tokens),
        ("gen_ai.usage.output_tokens", record.completion_tokens),
        ("hermes2.queue_s", record.queue_s),
    ):
        if value is not None:
            span.set(name, value)
