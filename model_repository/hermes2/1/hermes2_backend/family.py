"""One fate for the engine's processes: none outlives the one that started it.

tritonserver -> stub -> EngineCore -> worker. A killed stub leaves EngineCore and worker behind with their memory, and
a killed tritonserver its stub; nothing above can be trusted to be alive to clean up. So each looks after itself:
what vLLM starts asks the kernel for a signal, and the stub, whose parent thread may end while the server lives
(which would fire that signal), watches its parent's pid.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time

PR_SET_PDEATHSIG = 1
STUB_PID = "HERMES2_STUB_PID"


def die_with_parent() -> None:
    """Called twice in each process that vLLM starts: by the environment's .pth file in its first instant, when nothing is
    known of its parent yet, and by vLLM as a plugin (entry point `vllm.general_plugins`), when it is.
    """
    if os.environ.get(STUB_PID) == str(os.getpid()):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it died before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def watch_parent(interval_s: float = 0.5) -> None:
    """Kills this process once its parent is another one than now: tritonserver is gone."""
    os.environ[STUB_PID] = str(os.getpid())
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="hermes2-watch-parent", daemon=True).start()
