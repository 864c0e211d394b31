"""The fields that several events of the log share; a field that does not apply is left out."""

from __future__ import annotations

from frontend.domain.record import Record


def without_none(**fields: object) -> dict[str, object]:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def figures(record: Record) -> dict[str, object]:
    """What a request or a generation has used, None where it has not."""
    return {
        "model": record.model,
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "completion_tokens": record.completion_tokens,
        "queue_ms": milliseconds(record.queue_s),
    }


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 1)
