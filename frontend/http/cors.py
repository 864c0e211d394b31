"""Which pages of other origins may call the API from a browser: those that the settings name, none by default."""

from __future__ import annotations

import re
from collections.abc import Sequence

from litestar.config.cors import CORSConfig

from frontend.settings import SettingsError

ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
REQUEST_HEADERS = ["authorization", "content-type", "idempotency-key", "x-request-id", "x-session-id", "traceparent"]
STAINLESS = [
    *("x-stainless-arch", "x-stainless-async", "x-stainless-lang", "x-stainless-os", "x-stainless-package-version"),
    *("x-stainless-retry-count", "x-stainless-runtime", "x-stainless-runtime-version", "x-stainless-timeout"),
    *("x-stainless-helper-method", "openai-organization", "openai-project"),
]
"""What OpenAI's JavaScript SDK sends along."""
LIMITS = [f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]
REPLY_HEADERS = ["x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "idempotent-replayed", *LIMITS]
METHODS = ["GET", "POST", "DELETE"]


def config(origins: Sequence[str]) -> CORSConfig | None:
    """None: no header at all, and browsers keep other origins out. Raises SettingsError.

    No credentials: what a browser would add by itself, cookies above all, means nothing here; a page has to have a key.
    "*" is refused all the same: a key in a page of any origin is a key that is lost.
    """
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"http.cors_origins (HERMES2_HTTP_CORS_ORIGINS): {origin!r} is not an origin like https://app.example.com"
            )
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=METHODS,  # type: ignore[arg-type]  # a list of these literals
        allow_headers=[*REQUEST_HEADERS, *STAINLESS],
        allow_credentials=False,
        expose_headers=REPLY_HEADERS,
    )
