"""The bounded form of `make fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import campaign

SEED, SECONDS = 1, 45


@pytest.mark.clients
def test_the_api_is_what_its_page_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three quarters of a minute of generated requests: no 5xx, nothing undocumented, nothing invalid taken, no process lost."""
    with campaign.service(tmp_path / "home") as stack:
        report = campaign.run(stack, tmp_path, SEED, SECONDS)
        answered = campaign.answers(stack)
    with capsys.disabled():
        print(f"\nfuzz: {report.line()}; {answered}")
    assert report.test_cases.generated > 1000
    assert answered[200] > 100
