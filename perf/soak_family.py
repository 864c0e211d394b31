"""What each part of the service holds: memory, open files, threads, of the launcher and everything below it.

PSS: what is a process's own, and of what it shares with others its share, so that parts can be summed. Of RSS they cannot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import psutil

NAMES = {
    "/model_repository/embedder/": "embedder's stub",
    "triton_python_backend_stub": "stub",
    "VLLM::EngineCore": "EngineCore",
    "VLLM::Worker": "vLLM's worker",
    "tritonserver/bin": "Triton",
    "granian": "frontend",
    "valkey-server": "Valkey",
}
"""What a command line has, and whose it is; the first that fits. One that fits none is its parent's."""
LAUNCHER = "launcher"
PARTS = (LAUNCHER, "frontend", "Triton", "stub", "EngineCore", "vLLM's worker", "embedder's stub", "Valkey")


class Holding(msgspec.Struct, frozen=True):
    """Of one part, all of its processes together."""

    pss_bytes: int = 0
    rss_bytes: int = 0
    files: int = 0
    threads: int = 0
    pids: Sequence[int] = ()

    def __add__(self, other: Holding) -> Holding:
        return Holding(
            self.pss_bytes + other.pss_bytes,
            self.rss_bytes + other.rss_bytes,
            self.files + other.files,
            self.threads + other.threads,
            [*self.pids, *other.pids],
        )


def holdings(launcher: int) -> Mapping[str, Holding]:
    """By part; a few milliseconds of CPU for each gigabyte."""
    found: dict[str, Holding] = {}
    for part, process in parts(launcher):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found[part] = found.get(part, Holding()) + holding(process)
    return found


def holding(process: psutil.Process) -> Holding:
    memory = process.memory_full_info()
    return Holding(memory.pss, memory.rss, process.num_fds(), process.num_threads(), [process.pid])


def parts(launcher: int) -> Iterator[tuple[str, psutil.Process]]:
    """The whole family, parents before their children."""
    head = psutil.Process(launcher)
    known = {launcher: LAUNCHER}
    yield LAUNCHER, head
    for process in head.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            part = part_of(process.cmdline()) or known.get(process.ppid(), LAUNCHER)
            known[process.pid] = part
            yield part, process


def part_of(command: Sequence[str]) -> str | None:
    """None: the command line does not tell."""
    text = " ".join(command[:3])
    return next((part for name, part in NAMES.items() if name in text), None)
