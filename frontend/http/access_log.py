"""Around the whole application: a request id on every reply, and one canonical log line per request."""

from __future__ import annotations

import re
import time

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from frontend.domain import ids
from frontend.observability import metrics

log = structlog.get_logger("hermes2.access")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class AccessLog:
    """Outermost, so that replies to unknown routes and crashes are seen too. Logs no body, no query, no header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = requested_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._record(scope, state.get("status", status), time.perf_counter() - started)

    @staticmethod
    def _record(scope: HTTPScope, status: int, duration_s: float) -> None:
        route, state = scope.get("path_template") or "unmatched", scope["state"]
        method = scope["method"] if scope["method"] in METHODS else "other"
        metrics.REQUESTS.labels(method, route, status).inc()
        metrics.DURATION.labels(route).observe(duration_s)
        # A probe every second that finds nothing wrong is no news.
        write = log.debug if route.startswith("/health") and status < 500 else log.info
        write(
            "request",
            method=method,
            route=route,
            status=status,
            error=state.get("error_code"),
            tenant=state.get("tenant"),
            request_id=state["request_id"],
            duration_ms=round(duration_s * 1e3, 1),
        )


def requested_id(scope: Scope) -> str:
    """The client's own x-request-id if it is a plain one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and ACCEPTABLE_ID.fullmatch(value):
            return value.decode()
    return ids.new("req_")
