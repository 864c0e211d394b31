"""hermes2_backend.cpu_sampler draws what vLLM's sampler would: measured in the engine's environment, beside vLLM's own limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_python import found_by


@pytest.fixture(scope="module")
def drawn(engine_environment: Path) -> dict[str, Any]:
    return found_by("sampler_checks.py", engine_environment)


@pytest.mark.parametrize(
    "what",
    ["free", "free, steep", "top_p of many", "top_p of some", "top_p of few", "top_k", "both"],
)
def test_the_distribution_is_the_same(drawn: dict[str, Any], what: str) -> None:
    """As far from the exact one as as many draws of torch's own are; nothing that the limits exclude."""
    assert drawn[what]["found"] < 1.3 * drawn[what]["chance"] + 1e-3
    assert drawn[what]["outside"] == 0


def test_rows_do_not_touch_each_other(drawn: dict[str, Any]) -> None:
    free, one, least, three = drawn["rows apart"]
    assert free > 20
    assert (one, least, three) == (0, 0, 0)


def test_a_seed_decides(drawn: dict[str, Any]) -> None:
    assert drawn["seeds"] is True


def test_a_forbidden_token_is_never_drawn(drawn: dict[str, Any]) -> None:
    assert drawn["nothing of probability 0"] == 0
