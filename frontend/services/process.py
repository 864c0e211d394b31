"""Which process runs a turn, said so that others can tell whether it still lives."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def this_process() -> str:
    """A name that no other process has had or will have: where it runs, its pid, and when it was started."""
    return f"{where()}/{os.getpid()}/{started_at(os.getpid())}"


def is_dead(name: str) -> bool:
    """True only if it is certain: the process ran where this one runs, and is gone."""
    place, pid, started = name.rsplit("/", 2)
    return place == where() and started_at(int(pid)) != started


@cache
def where() -> str:
    """The boot of the machine and the namespace of its process ids, which two containers do not share."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def started_at(pid: int) -> str | None:
    """In clock ticks since the boot; None if there is no such process, or it is dead and not yet buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
