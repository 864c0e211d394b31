"""Structured logs on standard output, as JSON or for people. Call sites pass fields, never prompt text and never keys."""

from __future__ import annotations

import logging
import sys

import structlog

from frontend.settings import LogSettings

# structlog's defaults show the local variables of every frame: prompts and keys among them.
TRACEBACK = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure(settings: LogSettings) -> None:
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.ExceptionRenderer(TRACEBACK), structlog.processors.JSONRenderer()]
        if settings.format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=shared + last,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
