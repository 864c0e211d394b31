"""The frontend as a child: Granian with its worker processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from deploy.launcher.family import Command
from frontend.settings import ROOT, Settings

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to ask a server that listens everywhere


class FrontendService:
    name = "frontend"
    start_timeout_s = 60.0
    hang_timeout_s = 15.0

    def __init__(self, settings: Settings, model_dir: Path, valkey_url: str, embedder_dir: Path | None = None) -> None:
        self._settings = settings
        self._model_dir = model_dir
        self._valkey_url = valkey_url
        self._embedder_dir = embedder_dir
        self.stop_timeout_s = settings.http.drain_timeout_s + 5

    def command(self) -> Command:
        settings = self._settings
        metrics = settings.home / "run/metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(parents=True)
        argv = [sys.executable, "-m", "granian", "deploy.launcher.worker:asgi", "--factory", "--interface", "asgi"]
        argv += ["--host", settings.host, "--port", str(settings.port), "--workers", str(settings.workers)]
        argv += ["--loop", "uvloop", "--no-ws", "--log-level", "warning"]
        argv += ["--respawn-failed-workers", "--respawn-interval", "0.5"]
        argv += ["--workers-kill-timeout", str(int(settings.http.drain_timeout_s))]
        environment = {
            **os.environ,
            "HERMES2_HOME": str(settings.home),
            "HERMES2_MODEL_DIR": str(self._model_dir),
            "HERMES2_VALKEY_URL": self._valkey_url,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        if self._embedder_dir is not None:
            environment["HERMES2_EMBEDDER_MODEL_DIR"] = str(self._embedder_dir)
        if settings.workers > 1:
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        return Command(self.name, argv, environment)

    async def probe(self) -> None:
        """GET /health/live, by hand: one line of HTTP needs no client library."""
        host = ANY_ADDRESS.get(self._settings.host, self._settings.host)
        reader, writer = await asyncio.open_connection(host, self._settings.port)
        try:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: hermes2\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
        finally:
            writer.close()
        if b" 200 " not in status:
            raise ConnectionError(status.decode(errors="replace"))
