"""frontend/observability/logging: what a log line holds, and what it must not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from frontend.observability import logging
from frontend.settings import LogSettings

CANARY = "canary-prompt-text"


@pytest.fixture(autouse=True)
def _fresh_configuration() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_a_traceback_shows_no_local_variables(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    """structlog's own formatters print the locals of every frame: prompts and keys among them."""
    logging.configure(LogSettings(format=format_, level="info"))  # type: ignore[arg-type]  # the parameter's values

    def handler(prompt: str) -> None:
        raise RuntimeError(f"failed with {len(prompt)} characters")

    try:
        handler(CANARY)
    except RuntimeError as exc:
        structlog.get_logger().error("unexpected_error", exc_info=exc)
    printed = capsys.readouterr().out
    assert "failed with 18 characters" in printed
    assert CANARY not in printed.replace("CANARY", "")


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with time, level and event."""
    logging.configure(LogSettings(format="json", level="info"))
    structlog.get_logger().info("request", status=200)
    structlog.get_logger().debug("not shown")
    (line,) = capsys.readouterr().out.splitlines()
    assert {"event", "level", "timestamp", "status"} == set(json.loads(line))
