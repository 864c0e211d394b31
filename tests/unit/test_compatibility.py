"""The page of the API's compatibility says what the tests prove, and no more."""

from __future__ import annotations

import subprocess
import sys

from frontend.settings import ROOT
from tests.support.compatibility import PAGE

PRINT = "import sys; from tests.support import compatibility; sys.stdout.write(compatibility.page())"


def test_the_page_is_that_of_the_tests() -> None:
    """docs/compatibility.md is what `make docs` writes."""
    made = subprocess.run([sys.executable, "-c", PRINT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout == PAGE.read_text(), "run `make docs`"
