"""The W3C trace context of a request."""

from __future__ import annotations

import re
from typing import Any

from litestar.connection import ASGIConnection

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """The header's value if it is a valid one; anything else counts as absent, as the specification has it."""
    value = connection.headers.get("traceparent", "")
    return value if TRACEPARENT.fullmatch(value) else None
