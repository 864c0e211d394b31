"""Starts a process for each file, and ends it: by its result, or whole at the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from retrieval.parsing.child import Found
from retrieval.parsing.kinds import suffix_of
from retrieval.parsing.limits import Limits
from retrieval.parsing.texts import WIDEST_BYTES
from retrieval.parsing.unreadable import Unreadable, invalid

ROOT = Path(__file__).resolve().parents[2]
"""Where the package lies: the child's working folder, from which it imports."""
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",  # openpyxl imports numpy, which takes address space for each thread
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
"""All that a child knows: no key and no setting of the service."""
FIRST_LINE_BYTES = 4096
READ_BYTES = 2**18


class ProcessParser:
    """Files to text. Any number at a time: whoever calls it bounds that."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._encoded = msgspec.json.encode(limits).decode()

    async def parse(self, filename: str, path: Path) -> str:
        """Raises Unreadable; OSError if no process can be started, or there is no such file."""
        process = await self._start(filename, path)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                output = await self._read(process)
                status = await process.wait()
        except TimeoutError as exc:
            raise self._too_slow() from exc
        finally:
            await end(process)
        return await asyncio.to_thread(self._result, output, status)

    async def _start(self, filename: str, path: Path) -> asyncio.subprocess.Process:
        with path.open("rb") as file:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-B", "-m", "retrieval.parsing.child", suffix_of(filename), self._encoded, str(os.getpid()),
                stdin=file,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd=ROOT,
                start_new_session=True,
                limit=READ_BYTES,
            )  # fmt: skip

    async def _read(self, process: asyncio.subprocess.Process) -> bytearray:
        assert process.stdout is not None
        output = bytearray()
        while piece := await process.stdout.read(READ_BYTES):
            output += piece
            if len(output) > self._limits.max_chars * WIDEST_BYTES + FIRST_LINE_BYTES:
                raise Unreadable("server_error", "The service failed to read the file: its text has no end.")
        return output

    def _result(self, output: bytearray, status: int) -> str:
        first, _, text = output.partition(b"\n")
        if status == -signal.SIGXCPU:
            raise self._too_slow()
        if status < 0:  # memory that a library in C did not get, mostly
            raise invalid(f"Reading the file ended in {signal.Signals(-status).name}: it is broken, or too large.")
        if status > 0 or not first:
            raise Unreadable("server_error", f"The service failed to read the file (status {status}).")
        found = msgspec.json.decode(first, type=Found)
        if found.code is not None:
            raise Unreadable(found.code, found.message)
        return text.decode()

    def _too_slow(self) -> Unreadable:
        return invalid(f"Reading the file takes longer than {self._limits.timeout_s:g} seconds. Please split it.")


async def end(process: asyncio.subprocess.Process) -> None:
    """With all that it may have started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
