"""The frontend as a child: Granian with its worker processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from deploy.launcher import tls
from deploy.launcher.family import Command
from frontend.settings import ROOT, Settings

HEAD_TIMEOUT_MS = 30_000
"""How long a connection may take for the head of a request, also of the next one: idle ones are closed by it."""
HTTP1_BUFFER_BYTES = 64 * 1024
"""Of a request's head; one of up to twice that has been seen to pass."""


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
        # HTTP/1.1 alone: what bounds a head here, bounds nothing of HTTP/2. A proxy may speak that with its clients.
        argv += ["--http", "1", "--http1-header-read-timeout", str(HEAD_TIMEOUT_MS)]
        argv += ["--http1-buffer-size", str(HTTP1_BUFFER_BYTES)]
        argv += tls_options(settings)
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
        context = tls.unchecked() if tls.is_on(self._settings) else None
        reader, writer = await asyncio.open_connection(tls.own_host(self._settings), self._settings.port, ssl=context)
        try:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: hermes2\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
        finally:
            writer.close()
        if b" 200 " not in status:
            raise ConnectionError(status.decode(errors="replace"))


def tls_options(settings: Settings) -> list[str]:
    """TLS 1.2 has only suites with forward secrecy and authenticated encryption there (rustls)."""
    if not tls.is_on(settings):
        return []
    files = ["--ssl-certificate", str(settings.http.tls_certificate), "--ssl-keyfile", str(settings.http.tls_key)]
    return [*files, "--ssl-protocol-min", "tls1.2"]
