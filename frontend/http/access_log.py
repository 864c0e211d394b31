"""Around the whole application: what every reply has in its head, and one canonical log line per request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from frontend.domain import ids
from frontend.domain.record import Record
from frontend.http import limit_headers
from frontend.http.proxies import Proxies
from frontend.observability import metrics
from frontend.observability.fields import figures, milliseconds, without_none

log = structlog.get_logger("hermes2.access")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
"""For a browser that is led to a reply: nothing in it is run, framed, or told of elsewhere."""
NO_STORE = (b"cache-control", b"no-store")
"""Unless the reply says something of its own."""
STREAM = b"text/event-stream"
HSTS = (b"strict-transport-security", b"max-age=31536000")
"""Where this server speaks TLS itself; a proxy that does speaks for itself."""


class AccessLog:
    """Outermost, so that replies to unknown routes and crashes are seen too. Logs no body, no query, no header."""

    def __init__(self, app: ASGIApp, proxies: Proxies | None = None) -> None:
        self._app = app
        self._proxies = proxies or Proxies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = requested_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["client"] = self._proxies.client_of(scope)
        status, streamed = 500, False

        async def send_with_head(message: Message) -> None:
            nonlocal status, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = headers = completed(message.get("headers", ()), scope)
                streamed = any(name == b"content-type" and value.startswith(STREAM) for name, value in headers)
            await send(message)

        try:
            # Whatever else is logged meanwhile, for this request or by what it has begun, can be found by its id.
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                await self._app(scope, receive, send_with_head)
        finally:
            self._record(scope, state.get("status", status), started, streamed)

    @staticmethod
    def _record(scope: HTTPScope, status: int, started: float, streamed: bool) -> None:
        duration_s = time.perf_counter() - started
        route, state = scope.get("path_template") or "unmatched", scope["state"]
        method = scope["method"] if scope["method"] in METHODS else "other"
        metrics.REQUESTS.labels(method, route, status).inc()
        metrics.DURATION.labels(route).observe(duration_s)
        record: Record = state.get("record") or Record()
        first_token_s = None
        if streamed and record.first_token_at is not None:  # nobody sees the first token of a whole reply
            first_token_s = record.first_token_at - started
            metrics.FIRST_TOKEN.labels(route).observe(first_token_s)
            if (inter_token_s := record.inter_token_s) is not None:
                metrics.INTER_TOKEN.labels(route).observe(inter_token_s)
        # A probe every second, or a scrape, that finds nothing wrong is no news.
        no_news = status < 500 if route.startswith("/health") else status < 400 and route == "/metrics"
        write = log.debug if no_news else log.info
        fields = without_none(
            method=method,
            route=route,
            status=status,
            error=state.get("error_code"),
            tenant=state.get("tenant"),
            key_id=state.get("key_id"),
            client=state["client"],
            request_id=state["request_id"],
            trace_id=state.get("trace_id"),
            **figures(record),
            ttft_ms=milliseconds(first_token_s),
            duration_ms=milliseconds(duration_s),
        )
        write("request", **fields)


def completed(headers: Iterable[tuple[bytes, bytes]], scope: HTTPScope) -> list[tuple[bytes, bytes]]:
    """A reply's own headers, and those that all have; its own win."""
    state = scope["state"]
    said = list(headers)
    names = {name.lower() for name, _ in said}
    said += [each for each in (*SECURITY, NO_STORE) if each[0] not in names]
    if scope["scheme"] == "https":
        said.append(HSTS)
    if (standing := state.get("standing")) is not None:
        said += limit_headers.headers(standing)
    said.append((b"x-request-id", state["request_id"].encode()))
    return said


def requested_id(scope: Scope) -> str:
    """The client's own x-request-id if it is a plain one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and ACCEPTABLE_ID.fullmatch(value):
            return value.decode()
    return ids.new("req_")
