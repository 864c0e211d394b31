"""What reading one file may cost, and how a process holds itself to it."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal

import msgspec

PR_SET_PDEATHSIG = 1
OPEN_FILES = 64


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    max_chars: int
    """Of the text that comes out."""
    memory_bytes: int
    """Address space of the process that reads."""
    timeout_s: float

    @property
    def max_unpacked_bytes(self) -> int:
        """Of all parts of a zip container together: they are held in memory, some of them as trees."""
        return self.memory_bytes // 2


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when `parent` ends, its parent; now, if that has happened."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def confine(limits: Limits) -> None:
    """This process, from now on: no file of its own, no core dump, so much memory and processor time."""
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(limits.timeout_s)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, most))
