"""The examples of README and docs run as they stand, and generated pages are up to date."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.launcher import reference
from frontend.settings import ROOT
from tests.support.stack import API_KEY, BIN, Stack

EXAMPLE = re.compile(r"^```(bash|python) run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(language, code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (language, code) in enumerate(EXAMPLE.findall(page.read_text()), start=1)
]


@pytest.mark.real
@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_an_example_runs(stack: Stack, tmp_path: Path, language: str, code: str) -> None:
    """On the running service, with nothing changed but ports and the place of the key; it prints something."""
    (tmp_path / ".hermes2").mkdir()
    (tmp_path / ".hermes2/api-key").write_text(API_KEY)
    (tmp_path / ".venv").symlink_to(BIN.parent)
    code = code.replace("localhost:11401", f"127.0.0.1:{stack.port}").replace("localhost:8001", stack.grpc)
    program = (
        [shutil.which("bash") or "bash", "-euo", "pipefail", "-c"]
        if language == "bash"
        else [str(BIN / "python"), "-W", "error", "-c"]
    )
    environment = stack.environment | {"PYTHONPATH": str(ROOT), "HERMES2_HOME": str(ROOT / ".hermes2")}
    done = subprocess.run(
        [*program, code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert '"error"' not in done.stdout


def test_there_are_examples() -> None:
    """README's curl and SDK snippet, and one per direct client at least."""
    assert len(EXAMPLES) >= 7


def test_the_configuration_page_is_current() -> None:
    """docs/configuration.md is what `make docs` writes."""
    assert (ROOT / "docs/configuration.md").read_text() == reference.page()


def test_links_lead_somewhere() -> None:
    """Every relative link of a page is a file of the repository."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
