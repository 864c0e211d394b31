"""A service of a measurement's own: `hermes2 serve` on free ports, with a home that is gone afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from frontend.settings import ROOT

HERMES2 = Path(sys.executable).parent / "hermes2"
START_S, STOP_S = 300, 60
KEY = "perf-key-0123456789-0123456789"


class Service(msgspec.Struct, frozen=True):
    url: str
    """Without /v1."""
    environment: Mapping[str, str]
    pid: int
    """The launcher's."""
    key: str = KEY
    """Of the first tenant; it may do everything."""

    def new_key(self, tenant: str) -> str:
        made = subprocess.run(
            [HERMES2, "keys", "create", "--tenant", tenant],
            env=dict(self.environment),
            check=True,
            capture_output=True,
            text=True,
        )
        return made.stdout.strip()


def share_cache(home: Path) -> None:
    """What vLLM and the compiler keep for the next start, for every service of this checkout: each would make it anew, for a
    minute or two."""
    cache = ROOT / ".hermes2/cache"
    cache.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "cache").exists():
        (home / "cache").symlink_to(cache)


@contextmanager
def running(**settings: object) -> Iterator[Service]:
    """`settings`: as environment variables without their prefix."""
    with TemporaryDirectory() as home:
        share_cache(Path(home))
        port, grpc_port, metrics_port = free_ports(3)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HERMES2_")},
            "HERMES2_MODELS": os.environ.get("HERMES2_MODELS", str(Path(".hermes2/models").absolute())),
            "HERMES2_HOME": home,
            "HERMES2_PORT": str(port),
            "HERMES2_TRITON_GRPC_PORT": str(grpc_port),
            "HERMES2_TRITON_METRICS_PORT": str(metrics_port),
            "HERMES2_API_KEY": KEY,
            **{f"HERMES2_{name}": str(value) for name, value in settings.items()},
        }
        log = Path(home) / "serve.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [HERMES2, "serve"], env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            wait_for("| ready: ", log, process)
            yield Service(f"http://127.0.0.1:{port}", environment, process.pid)
        finally:
            stop(process)


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    """Raises RuntimeError with the end of the log."""
    until = time.monotonic() + START_S
    while text not in (said := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the service does not start:\n" + "\n".join(said.splitlines()[-40:]))
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
