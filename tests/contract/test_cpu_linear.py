"""The INT8 kernel that hermes2_backend.cpu_worker gives to vLLM on CPUs without AMX: measured in the engine's environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.launcher import profiles
from frontend.settings import ROOT

pytestmark = pytest.mark.skipif("avx512_vnni" not in profiles.cpu_flags(), reason="this CPU has no AVX512-VNNI")


@pytest.fixture(scope="module")
def checked(engine_environment: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "model_repository/hermes2/1")}
    done = subprocess.run(
        [engine_environment / "bin/python", ROOT / "tests/support/linear_checks.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_it_takes_int8_of_its_shapes_only(checked: dict[str, Any]) -> None:
    """And vLLM still asks by the name that the worker replaces: another one would leave oneDNN in its place, silently."""
    assert checked["asked"] is True
    assert checked["taken"] == [True, True, True, True]
    assert checked["others"] == [False, False, False]


def test_it_multiplies(checked: dict[str, Any]) -> None:
    """As float64 does with the same integers, but for bf16's last digit and a rounding that fell the other way."""
    assert checked["far"] < 0.01
