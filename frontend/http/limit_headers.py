"""What is left of a request's limits, as OpenAI's headers say it."""

from __future__ import annotations

import math

from frontend.domain.limits import Allowance, Standing


def headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    """x-ratelimit-{limit,remaining,reset}-{requests,tokens}; none of what has no limit."""
    found = []
    for what, allowance in (("requests", standing.requests), ("tokens", standing.tokens)):
        if allowance is not None:
            for name, value in values(allowance):
                found.append((f"x-ratelimit-{name}-{what}".encode(), value.encode()))
    return found


def values(allowance: Allowance) -> list[tuple[str, str]]:
    return [
        ("limit", str(allowance.limit)),
        ("remaining", str(allowance.remaining)),
        ("reset", duration(allowance.reset_s)),
    ]


def duration(seconds: float) -> str:
    """As OpenAI writes it: 350ms, 1s, 1.5s, 6m0s, 1h0m0s. Never less than it is; to the millisecond."""
    total_ms = math.ceil(round(seconds * 1e3, 6))
    if total_ms < 1000:
        return f"{total_ms}ms" if total_ms else "0s"
    minutes, ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1e3:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
