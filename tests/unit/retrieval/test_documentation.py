"""docs/retrieval.md: what it shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs/retrieval.md"


def test_the_ten_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand on the page, and they find the text that answers."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    exec(compile(found[1], str(PAGE), "exec"), {})  # noqa: S102  # the page's own lines
    assert capsys.readouterr().out.startswith("Ada Lovelace wrote the first program.")
