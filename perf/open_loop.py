"""Arrivals that wait for nobody: each request is sent when it is due, whatever has become of those before it.

A closed loop asks less of a service that is slow, and hides its queue. Times count from when a request was due, so that a
client that is late itself hides nothing either. HTTP by hand on connections that are kept open: what the clients compute on the
same machine is taken from the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from urllib.parse import urlsplit

import msgspec

from perf.overload_load import WORDS, percentile

FIRST_WORD = re.compile(rb'"content": ?"[^"]')
USAGE = re.compile(rb'"prompt_tokens": ?(\d+).*?"completion_tokens": ?(\d+)')
LAST_CHUNK = b"0\r\n\r\n"
PATIENCE_S = 60.0
"""After the last arrival; what has no answer by then has failed."""


class Outcome(msgspec.Struct, frozen=True):
    """One request; seconds from when it was due."""

    ttft_s: float
    total_s: float
    prompt_tokens: int
    answer_tokens: int
    error: str | None = None


class Run(msgspec.Struct, frozen=True):
    """One series of arrivals."""

    outcomes: Sequence[Outcome]
    seconds: float
    """From the first arrival to the end of the last answer."""

    @property
    def errors(self) -> Sequence[str]:
        return [each.error for each in self.outcomes if each.error is not None]

    @property
    def served_per_s(self) -> float:
        return (len(self.outcomes) - len(self.errors)) / self.seconds

    def total_s(self, share: float) -> float:
        """Of all: one that has failed took for ever."""
        return percentile([float("inf") if each.error else each.total_s for each in self.outcomes], share)

    def ttft_s(self, share: float) -> float:
        return percentile([float("inf") if each.error else each.ttft_s for each in self.outcomes], share)


def even(per_s: float, seconds: float) -> list[float]:
    return [number / per_s for number in range(int(per_s * seconds))]


def poisson(per_s: float, seconds: float, seed: int) -> list[float]:
    chance = random.Random(seed)  # noqa: S311  # the same arrivals each time
    due, times = 0.0, []
    while (due := due + chance.expovariate(per_s)) < seconds:
        times.append(due)
    return times


def chats(count: int, *, words: int, answer_tokens: int, seed: int, more: Mapping[str, object]) -> Iterator[bytes]:
    """Bodies of streamed chats, no two of them alike behind the system's turn."""
    chance = random.Random(seed)  # noqa: S311
    for _ in range(count):
        text = "Go on with:" + "".join(chance.choice(WORDS) for _ in range(words))
        body = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": answer_tokens,
            "ignore_eos": True,
            "temperature": 0.7,
            "stream": True,
            "stream_options": {"include_usage": True},
            **more,
        }
        yield msgspec.json.encode(body)


async def drive(url: str, key: str, arrivals: Sequence[float], bodies: Sequence[bytes]) -> Run:
    """`url`: without /v1. `arrivals`: seconds from now."""
    client = Client(url, key)
    begin = time.perf_counter()
    tasks: list[asyncio.Task[Outcome]] = []
    with contextlib.suppress(TimeoutError):  # those that are cut off have failed
        async with asyncio.timeout(arrivals[-1] + PATIENCE_S), asyncio.TaskGroup() as group:
            for due, body in zip(arrivals, bodies, strict=True):
                await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
                tasks.append(group.create_task(client.ask(body, begin + due)))
    nothing = Outcome(PATIENCE_S, PATIENCE_S, 0, 0, "no answer in time")
    outcomes = [nothing if task.cancelled() else task.result() for task in tasks]
    outcomes += [nothing] * (len(arrivals) - len(outcomes))
    client.close()
    return Run(outcomes, time.perf_counter() - begin)


class Client:
    """Any number of requests at a time; connections are used again."""

    def __init__(self, url: str, key: str) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        ).encode()
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()

    async def ask(self, body: bytes, due: float) -> Outcome:
        try:
            return await self._ask(body, due)
        except (OSError, EOFError, ValueError) as exc:
            now = time.perf_counter() - due
            return Outcome(now, now, 0, 0, repr(exc))

    async def _ask(self, body: bytes, due: float) -> Outcome:
        reader, writer = (
            self._idle.popleft() if self._idle else await asyncio.open_connection(self._host, self._port, limit=2**20)
        )
        writer.write(self._head + b"content-length: %d\r\n\r\n" % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status != 200:
            writer.close()
            now = time.perf_counter() - due
            return Outcome(now, now, 0, 0, f"status {status}")
        first_s, heard = 0.0, b""
        while not heard.endswith(LAST_CHUNK):
            piece = await reader.read(2**16)
            if not piece:
                raise EOFError("the stream was cut off")
            heard += piece
            if not first_s and FIRST_WORD.search(heard):
                first_s = time.perf_counter() - due
        total_s = time.perf_counter() - due
        self._idle.append((reader, writer))
        usage = USAGE.findall(heard)
        if not usage or not first_s or b"data: [DONE]" not in heard:
            return Outcome(total_s, total_s, 0, 0, "the stream ended early")
        return Outcome(first_s, total_s, int(usage[-1][0]), int(usage[-1][1]))


def spread(values: Sequence[float], unit: float = 1e3) -> str:
    """The median of several runs, and between what they lie."""
    low, middle, high = (f"{unit * value:,.0f}" for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
