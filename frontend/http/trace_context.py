"""The W3C trace context of a request: what the client says of it, and what goes on to the engine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection

TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """The parent of what the engine records of this request: its span (http/tracing.py), or the client's own."""
    traceparent: str | None = connection.scope.get("state", {}).get("traceparent")
    return traceparent or from_client(connection.scope["headers"])[0]


def from_client(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str]:
    """The client's traceparent and tracestate. One that is not valid counts as absent, as the specification has it, and so do
    two; no tracestate is an empty one."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1 or not TRACEPARENT.fullmatch(parents[0]):
        return None, ""
    states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    return parents[0].decode(), ",".join(states)
