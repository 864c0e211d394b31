"""Probes that come from several sides at once, as those of orchestrators and collectors do."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.support.stack import Stack


def test_probes_leave_nothing_behind(tmp_path: Path) -> None:
    """400 of them, 8 at a time, and the service still stops at once.

    A probe's call was once cancelled as soon as its answer was read, which Triton sometimes never got over: it kept the
    request, could not unload the model, and gave up 35 s after SIGTERM.
    """
    with Stack(tmp_path, ENGINE_BACKEND="scripted") as stack:
        with ThreadPoolExecutor(8) as threads:
            ready = list(threads.map(lambda _: httpx.get(f"{stack.url}/health/ready").status_code, range(400)))
        assert ready == [200] * 400
        started = time.monotonic()
        stack.stop()
        assert time.monotonic() - started < 15
