"""One fate with the server: Triton's models do not share code, so this is hermes2_backend/family.py's rule for a stub alone."""

from __future__ import annotations

import os
import signal
import threading
import time


def watch_parent(interval_s: float = 0.5) -> None:
    """Kills this process once its parent is another one than now: tritonserver is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="embedder-watch-parent", daemon=True).start()
