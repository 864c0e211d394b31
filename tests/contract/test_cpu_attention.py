"""The attention that hermes2_backend.cpu_worker gives to vLLM: measured in the engine's environment, beside vLLM's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_python import found_by


@pytest.fixture(scope="module")
def checked(engine_environment: Path) -> dict[str, Any]:
    return found_by("attention_checks.py", engine_environment)


def test_vllm_takes_it(checked: dict[str, Any]) -> None:
    """In place of its own, and no longer writes into the cache beside it."""
    assert checked["chosen"] is True
    assert checked["writes itself"] is True


def test_it_does_what_vllms_does(checked: dict[str, Any]) -> None:
    """Prompts, parts of prompts and single tokens, alone and together: the same output and the same cache, bit for bit."""
    assert checked["same"] == [True] * 9


def test_it_does_nothing_without_a_cache(checked: dict[str, Any]) -> None:
    """vLLM calls it so while the graph is compiled."""
    assert checked["warm"] is True
