"""Runs one of the scripts of tests/support that need the engine's environment: torch and vLLM are nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from frontend.settings import ROOT


def found_by(script: str, engine_environment: Path) -> dict[str, Any]:
    """The JSON that it prints last."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "model_repository/hermes2/1")}
    done = subprocess.run(
        [engine_environment / "bin/python", ROOT / "tests/support" / script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
