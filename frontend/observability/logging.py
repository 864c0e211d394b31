"""Structured logs on standard output, as JSON or for people. Call sites pass fields, never prompt text and never keys."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

from frontend.settings import LogSettings

# structlog's defaults show the local variables of every frame: prompts and keys among them.
TRACEBACK = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
OF_LIBRARIES = logging.WARNING
"""What they say below it tells of their own work, and may quote ours."""


class StandardOutput(logging.StreamHandler[TextIO]):
    """For what libraries log in Python's own way: the same form, at the same place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # looked up at each line, as print does
        return sys.stdout


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
    of_libraries = StandardOutput()
    of_libraries.setLevel(max(level, OF_LIBRARIES))
    of_libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, StandardOutput)]:
        root.removeHandler(handler)
    root.addHandler(of_libraries)
