"""The float32 Linears that hermes2_backend.cpu_worker gives to vLLM: measured in the engine's environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_python import found_by


@pytest.fixture(scope="module")
def checked(engine_environment: Path) -> dict[str, Any]:
    return found_by("linear_fp16_checks.py", engine_environment)


def test_weights_that_16_bits_hold_are_taken(checked: dict[str, Any]) -> None:
    """Where vLLM loads them: from bf16 and float16, small ones among them. Those of float32 would lose digits, those beyond 65504
    and those below 2^-24 all."""
    assert checked["taken"] == [True, True, True]
    assert checked["others"] == [False, False, False, False]


def test_they_multiply(checked: dict[str, Any]) -> None:
    """As float64 does with the same numbers, but for float32's last digits, with a bias and without."""
    assert checked["far"] < 1e-5


def test_a_compiled_graph_has_them(checked: dict[str, Any]) -> None:
    assert checked["compiled"] is True
