"""A running service for tests: `hermes2 serve` as a user starts it, on free ports and with a home of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil

from deploy.launcher import profiles
from frontend.settings import ROOT
from perf.service import free_ports, share_cache

API_KEY = "test-key-0123456789-0123456789"
BIN = Path(sys.executable).parent
"""The environment that the tests run in has the service too."""
ENGINE = Path(os.environ.get("HERMES2_ENGINE_ENVIRONMENT", ROOT / ".venv-engine")).absolute()
CLIENTS = Path(os.environ.get("HERMES2_CLIENTS_ENVIRONMENT", ROOT / ".venv-clients")).absolute()
"""Where other people's clients and the fuzzer are installed."""
MODELS = ROOT / ".hermes2/models"
"""The models that `make test` has prepared; every stack reads them."""


class Stack:
    """Starts on `with`, and ends with nothing left. Settings are given as environment variables without their prefix."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        share_cache(home)
        self.port, self.grpc_port, self.metrics_port = free_ports(3)
        if settings.get("ENGINE_BACKEND") == "scripted":  # it starts in 3 s, and in 8 with an embedding model
            settings = {"EMBEDDER_ENABLED": "false"} | settings
        if "ENGINE_PROFILE" not in settings:  # eager, it starts in half of the time
            settings = {"ENGINE_PROFILE": profiles.unquantised(), "ENGINE_ENFORCE_EAGER": "true"} | settings
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HERMES2_")},
            "HERMES2_ENGINE_ENVIRONMENT": str(ENGINE),
            "HERMES2_HOME": str(home),
            "HERMES2_MODELS": str(MODELS),
            "HERMES2_PORT": str(self.port),
            "HERMES2_TRITON_GRPC_PORT": str(self.grpc_port),
            "HERMES2_TRITON_METRICS_PORT": str(self.metrics_port),
            "HERMES2_API_KEY": API_KEY,
            **{f"HERMES2_{name}": str(value) for name, value in settings.items()},
        }
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def start(self, timeout_s: float = 300) -> Stack:
        self.lines = []
        self._process = subprocess.Popen(
            [str(BIN / "hermes2"), "serve"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self._process, self.lines), daemon=True).start()
        self.wait_for("| ready: ", timeout_s)
        return self

    def _read(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            lines.extend(line.rstrip() for line in process.stdout)  # grows line by line

    def wait_for(self, text: str, timeout_s: float, after: int = 0) -> float:
        """Seconds until `text` stands in a line after the first `after` ones."""
        started = time.monotonic()
        while time.monotonic() - started < timeout_s:
            if any(text in line for line in self.lines[after:]):
                return time.monotonic() - started
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no {text!r} within {timeout_s} s:\n" + "\n".join(self.lines[-40:]))

    def family(self) -> list[psutil.Process]:
        """The launcher and everything below it."""
        launcher = psutil.Process(self.process.pid)
        return [launcher, *launcher.children(recursive=True)]

    def find(self, text: str) -> psutil.Process:
        """The one process of the family whose command line or title holds `text`."""
        found = [p for p in self.family() if text in " ".join(p.cmdline())]
        assert len(found) == 1, [p.cmdline() for p in found]
        return found[0]

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def __enter__(self) -> Stack:
        try:
            return self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            try:
                self.stop()
            finally:
                self._process.kill()
                self._process.wait()
