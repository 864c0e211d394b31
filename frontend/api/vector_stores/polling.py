"""How often to look at what is in progress: the SDKs' poll helpers read it from a header."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from litestar import Response

T = TypeVar("T", bound=msgspec.Struct)

POLL_AFTER_MS = 500


def polled(body: T, *, in_progress: bool) -> Response[T]:
    headers = {"openai-poll-after-ms": str(POLL_AFTER_MS)} if in_progress else {}
    return Response(body, status_code=200, headers=headers, media_type="application/json")
