"""The INT8 kernel that hermes2_backend.cpu_worker gives to vLLM on CPUs without AMX: measured in the engine's environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.launcher import profiles
from tests.support.engine_python import found_by

pytestmark = pytest.mark.skipif("avx512_vnni" not in profiles.cpu_flags(), reason="this CPU has no AVX512-VNNI")


@pytest.fixture(scope="module")
def checked(engine_environment: Path) -> dict[str, Any]:
    return found_by("linear_checks.py", engine_environment)


def test_it_takes_int8_of_its_shapes_only(checked: dict[str, Any]) -> None:
    """And vLLM still asks by the name that the worker replaces: another one would leave oneDNN in its place, silently."""
    assert checked["asked"] is True
    assert checked["taken"] == [True, True, True, True]
    assert checked["others"] == [False, False, False]


def test_it_multiplies(checked: dict[str, Any]) -> None:
    """As float64 does with the same integers, but for bf16's last digit and a rounding that fell the other way."""
    assert checked["far"] < 0.01
