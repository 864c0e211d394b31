"""Deployment files as data, and the programs that judge them where this machine has them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from frontend.settings import ROOT

COMPOSE = ROOT / "deploy/compose/compose.yaml"
EXAMPLE = ROOT / "deploy/compose/.env.example"
DOCKERFILE = ROOT / "deploy/compose/frontend.Dockerfile"
UNIT = ROOT / "deploy/systemd/hermes2.service"
KUBERNETES = ROOT / "deploy/kubernetes"


def program(name: str, where: str) -> str:
    """Its path, from this Python's environment or the machine; `where` it comes from is the reason of the skip."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not on this machine ({where})")
    return found


def run(command: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `command` with `variables` and of ours only what finds programs."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        command, env={**kept, **(variables or {})}, capture_output=True, text=True, timeout=60, check=False
    )


def image_command() -> list[str]:
    """What the image of the frontend starts."""
    command: list[str] = json.loads(DOCKERFILE.read_text().partition("\nCMD ")[2].replace("\\\n", ""))
    return command


def size_bytes(text: str) -> int:
    """A size as Docker and systemd (K, M, G) and Kubernetes (Ki, Mi, Gi) read it: powers of 1024."""
    match = re.fullmatch(r"(\d+)([KMG])i?", text)
    assert match is not None, text
    return int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2]]
