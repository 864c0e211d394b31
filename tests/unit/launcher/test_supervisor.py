"""deploy/launcher/supervisor and family: starting, watching and ending, with small programs as services."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.launcher import supervisor as module
from deploy.launcher.family import Command, Family, process_of, runs
from deploy.launcher.problem import Problem
from deploy.launcher.supervisor import ServiceFailed, Supervisor


class Program:
    """A service made of one line of Python; ready when it has said so."""

    name = "program"
    start_timeout_s = 5.0
    stop_timeout_s = 0.5
    hang_timeout_s = 0.2

    def __init__(self, code: str, niceness: int = 0) -> None:
        self._code = code
        self._niceness = niceness
        self.healthy = True
        self.lost = False
        self.starts = 0

    def command(self) -> Command:
        self.starts += 1
        self.healthy = self.starts > 1 or self.healthy
        return Command(self.name, [sys.executable, "-u", "-c", self._code], dict(os.environ), self._niceness)

    async def probe(self) -> None:
        if self.lost:
            self.lost = False
            raise ServiceFailed("it said so itself")
        if not self.healthy:
            await asyncio.sleep(60)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_POLL_S", 0.01)
    monkeypatch.setattr(module, "WATCH_POLL_S", 0.01)
    monkeypatch.setattr(module, "BACKOFF_S", (0.01, 0.02))


async def kept(program: Program, lines: list[str]) -> tuple[Supervisor, asyncio.Task[None]]:
    supervisor = Supervisor(program, lambda _, line: lines.append(line))
    await supervisor.start()
    return supervisor, asyncio.create_task(supervisor.keep())


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def finish(supervisor: Supervisor, keeper: asyncio.Task[None]) -> None:
    await supervisor.stop()
    keeper.cancel()
    await asyncio.wait([keeper])
    assert supervisor.pid is None


async def test_output_comes_line_by_line() -> None:
    """Also a line longer than the reader's buffer, and one without an end."""
    lines: list[str] = []
    supervisor = Supervisor(
        Program("import sys; print('a'); print('x' * 3_000_000); sys.stdout.write('end')"),
        lambda _, line: lines.append(line),
    )
    await supervisor.start()
    await until(lambda: "end" in lines)
    assert lines[0] == "a" or lines[1] == "a"
    assert sum(line.count("x") for line in lines) == 3_000_000
    await supervisor.kill()


async def test_a_program_that_ends_at_once_is_a_problem_of_the_start() -> None:
    """The first start does not try for ever."""
    program = Program("raise SystemExit(3)")
    program.healthy = False
    with pytest.raises(Problem, match="program did not start: ended with status 3"):
        await Supervisor(program, lambda *_: None).start()


@pytest.mark.parametrize("failure", ["killed", "hung", "lost"])
async def test_a_failure_is_followed_by_a_new_start(failure: str) -> None:
    """Ended, silent, or lost by its own word: the reason is told, and it is started anew."""
    program, lines = Program("import time; time.sleep(60)"), list[str]()
    supervisor, keeper = await kept(program, lines)
    first = supervisor.pid
    assert first is not None
    if failure == "killed":
        os.kill(first, 9)
    else:
        setattr(program, "healthy" if failure == "hung" else "lost", failure == "lost")
    await until(lambda: program.starts == 2 and supervisor.ready.is_set())
    assert supervisor.pid != first
    reasons = {"killed": "ended with status -9", "hung": "does not answer", "lost": "it said so itself"}
    assert any(reasons[failure] in line and "starting it anew" in line for line in lines)
    await finish(supervisor, keeper)


async def test_a_machine_that_slept_has_seen_nobody_fail() -> None:
    """No time for the event loop either, as when a virtual machine is paused: the next probe decides."""
    program, lines = Program("import time; time.sleep(60)"), list[str]()
    supervisor, keeper = await kept(program, lines)
    probes = 0

    async def probe() -> None:
        nonlocal probes
        probes += 1
        if probes == 1:
            time.sleep(0.4)  # noqa: ASYNC251  # twice the patience, and it blocks the loop on purpose
            await asyncio.sleep(0.01)

    program.probe = probe  # type: ignore[method-assign]
    await until(lambda: probes > 3)
    assert program.starts == 1
    await finish(supervisor, keeper)


async def test_who_works_is_slow_and_not_hung() -> None:
    """Silence of a family that uses its core counts an eighth; then it is restarted all the same."""
    program, lines = Program("while True: pass"), list[str]()
    supervisor, keeper = await kept(program, lines)
    program.healthy = False
    silent_at = time.monotonic()
    await until(lambda: program.starts == 2)
    assert time.monotonic() - silent_at > 3 * program.hang_timeout_s
    await finish(supervisor, keeper)


async def test_who_gets_no_core_is_slow_and_not_hung() -> None:
    """As an engine, which stands back, beside somebody's program that computes on every core."""
    core = min(os.sched_getaffinity(0))
    pinned = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: "
    rival = await Family.start(Command("rival", [sys.executable, "-c", f"{pinned} pass"], dict(os.environ)))
    program, lines = Program(f"{pinned} os.sched_yield()", niceness=10), list[str]()
    supervisor, keeper = await kept(program, lines)
    assert supervisor.pid is not None
    used_s, silent_at = cpu_s(supervisor.pid), time.monotonic()
    program.healthy = False
    await until(lambda: time.monotonic() - silent_at > 3 * program.hang_timeout_s)
    assert program.starts == 1
    assert cpu_s(supervisor.pid) - used_s < module.BUSY * (time.monotonic() - silent_at)
    await until(lambda: program.starts == 2)
    await finish(supervisor, keeper)
    await rival.kill()


async def test_the_pause_grows_with_each_failure() -> None:
    """A program that cannot live does not take the machine with it."""
    program, lines = Program("import time; time.sleep(0.05); raise SystemExit(1)"), list[str]()
    supervisor, keeper = await kept(program, lines)
    await until(lambda: program.starts >= 4)
    pauses = [line.split(" in ")[1] for line in lines if "starting it anew" in line]
    assert pauses[:3] == ["0.01 s", "0.02 s", "0.02 s"]
    await finish(supervisor, keeper)


async def test_ending_takes_the_whole_session(tmp_path: Path) -> None:
    """A grandchild that ignores SIGTERM is killed with the rest."""
    note = tmp_path / "pid"
    grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {grandchild!r}])
pathlib.Path({str(note)!r}).write_text(str(child.pid))
time.sleep(60)
"""
    family = await Family.start(Command("program", [sys.executable, "-c", code], dict(os.environ)))
    await until(lambda: note.exists() and note.read_text())
    pid = int(note.read_text())
    await family.end(timeout_s=0.5)
    await until(
        lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    )


async def test_orphans_are_killed_and_children_are_not(tmp_path: Path) -> None:
    """A process whose parent, of a session of its own, has died comes to the launcher and is killed; a family that was
    started this moment is not mistaken for one.
    """
    code = f"""
import asyncio, os, pathlib, subprocess, sys
sys.path.insert(0, {str(Path.cwd())!r})
from deploy.launcher.family import become_subreaper, kill_orphans
become_subreaper()
parent = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; exec sleep 60"], stdout=subprocess.PIPE, start_new_session=True)
orphan = int(parent.stdout.readline())
assert kill_orphans() == []
parent.kill(); parent.wait()
assert kill_orphans() == [orphan]
child = subprocess.Popen(["sleep", "60"])
assert kill_orphans() == []
child.kill()
"""
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await asyncio.wait_for(done.wait(), 20) == 0


async def test_a_process_is_found_by_an_argument() -> None:
    """As long as it lives; as a whole argument, not as a part of one."""
    argument = f"/somewhere/{os.getpid()}/model.py"
    family = await Family.start(Command("program", ["sh", "-c", "sleep 60; :", argument], dict(os.environ)))
    found = process_of(argument)
    assert found == Path(f"/proc/{family.pid}")
    assert process_of(argument[:-1]) is None
    os.kill(family.pid, 9)
    await until(lambda: not runs(found, argument))
    await family.kill()


async def test_a_family_can_stand_back() -> None:
    """Its processes have the niceness of their command, beside that of the launcher."""
    code = "import os; print(os.nice(0))"
    family = await Family.start(Command("program", [sys.executable, "-c", code], dict(os.environ), 3))
    assert [line async for line in family.lines()] == [str(os.nice(0) + 3)]
    await family.end(1)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="a kernel without groups of sessions")
async def test_its_session_stands_back_too() -> None:
    """Where cores are shared between sessions, the niceness of one process says nothing to those of another."""
    code = "print(open('/proc/self/autogroup').read().strip())"
    family = await Family.start(Command("program", [sys.executable, "-c", code], dict(os.environ), 3))
    (line,) = [line async for line in family.lines()]
    assert line.endswith(" nice 3")
    await family.end(1)
