"""frontend/observability/logging: what a log line holds, and what it must not."""

from __future__ import annotations

import json
import logging as of_python
import re
from collections.abc import Iterator

import pytest
import structlog

from frontend.observability import logging
from frontend.settings import ROOT, LogSettings

CANARY = "canary-prompt-text"


@pytest.fixture(autouse=True)
def _fresh_configuration() -> Iterator[None]:
    before = list(of_python.getLogger().handlers)
    yield
    structlog.reset_defaults()
    of_python.getLogger().handlers[:] = before


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


def test_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """What they warn of is a line of JSON too, once, with their name; what is less than a warning is not there."""
    for _ in range(2):
        logging.configure(LogSettings(format="json", level="info"))
    library = of_python.getLogger("somebody.else")
    library.info("not shown")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        library.exception("it %s", "failed")
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["logger"]) == ("it failed", "error", "somebody.else")
    assert told["exception"][0]["exc_value"] == "broken"


def test_every_event_is_explained() -> None:
    """What the frontend can log stands in docs/logs.md."""
    page = (ROOT / "docs/logs.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "frontend").rglob("*.py"))
    events = set(re.findall(r"log\.(?:info|warning|error)\(\s*\"([a-z_]+)\"", code)) | {"request"}
    assert len(events) > 40
    assert not {event for event in events if f"`{event}`" not in page}
