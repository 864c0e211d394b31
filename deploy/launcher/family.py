"""Processes with one fate: started in their own session, dead when the launcher is dead, ended whole.

Three rules, each for the case that the others cannot reach:
- A direct child gets SIGKILL from the kernel when the launcher dies (PR_SET_PDEATHSIG).
- What a child started itself looks after itself (model_repository/hermes2/1/hermes2_backend/family.py, frontend worker).
- The launcher adopts every orphan below it (PR_SET_CHILD_SUBREAPER); an orphan belongs to a dead family and is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
AUTOGROUP = Path("/proc/self/autogroup")
"""The niceness of a session. Where the kernel shares cores between sessions (sched_autogroup_enabled), that of a process counts
within its own alone."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """The kernel sends `signal_number` to this process when `parent` ends, its parent; now, if that has happened."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)


def before_exec(parent: int, niceness: int) -> None:
    die_with_parent(parent)
    os.nice(niceness)
    if niceness:
        with contextlib.suppress(OSError):  # a kernel without it
            AUTOGROUP.write_text(str(niceness))


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    argv: list[str]
    environment: Mapping[str, str]
    niceness: int = 0
    """How far its processes stand back behind those of the launcher, as nice(1) counts."""


class Family:
    """One started command and everything in its session."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def start(cls, command: Command) -> Family:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env=dict(command.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=functools.partial(before_exec, os.getpid(), command.niceness),
            limit=2**20,
        )
        return cls(command.name, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    def runnable_s(self) -> float:
        """How long the living threads of its session have used a core or waited for one, seconds."""
        processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return sum(runnable_s_in(entry, self.pid) for entry in processes)

    async def lines(self) -> AsyncIterator[str]:
        """What the family prints, until all of it has ended."""
        assert self._process.stdout is not None
        while line := await read_line(self._process.stdout):
            yield line.decode(errors="replace").rstrip()

    async def end(self, timeout_s: float) -> None:
        """SIGTERM to the command, then SIGKILL to what is left of its session after `timeout_s`."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout_s)
        await self.kill()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, b"" at the end; one beyond the reader's limit comes in pieces."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except asyncio.LimitOverrunError as exc:
        return await reader.read(exc.consumed)


def kill_orphans() -> list[int]:
    """Kills and reaps the orphans that this process has adopted; returns their pids.

    They are the children whose session somebody else opened: ours are born in our own session and open one of theirs.
    """
    own = os.getsid(0)
    orphans = [pid for pid in children(os.getpid()) if session_of(pid) not in (own, pid, None)]
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return orphans


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def children(parent: int) -> list[int]:
    """Pids of the living children of `parent`, from /proc."""
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(entry.name) for entry in processes if parent_of(entry) == parent]


def process_of(argument: str) -> Path | None:
    """The entry in /proc of the process with this argument on its command line."""
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return next((entry for entry in processes if runs(entry, argument)), None)


def runs(process: Path, argument: str) -> bool:
    """Whether a process lives (a dead one has no command line), and has this argument on its command line."""
    try:
        return argument.encode() in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def runnable_s_in(process: Path, session: int) -> float:
    """Of one process, if it is of this session. A kernel without schedstat does not count the waiting."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        if int(fields[3]) != session:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S + sum(map(waited_s, (process / "task").iterdir()))
    except (OSError, IndexError, ValueError):
        return 0.0


def waited_s(thread: Path) -> float:
    """How long a thread that could have run had no core, seconds."""
    try:
        return int((thread / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def parent_of(process: Path) -> int | None:
    try:
        # "pid (comm) state ppid ...": comm may hold spaces and parentheses, so read from its end.
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None
