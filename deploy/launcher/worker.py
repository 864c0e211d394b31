"""What Granian loads in each worker process: the frontend, with the family's rule that no worker outlives its master."""

from __future__ import annotations

import multiprocessing

from litestar.types import ASGIApp

from deploy.launcher.family import die_with_parent
from frontend.app import asgi as frontend_asgi


def asgi() -> ASGIApp:
    master = multiprocessing.parent_process()
    if master is not None and master.pid is not None:
        die_with_parent(master.pid)
    return frontend_asgi()
