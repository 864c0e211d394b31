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
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from statistics import median
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from perf.overload_load import WORDS, percentile

FIRST_WORD = re.compile(rb'"content": ?"[^"]')
USAGE = re.compile(rb'"prompt_tokens": ?(\d+).*?"completion_tokens": ?(\d+)')
LAST_CHUNK = b"0\r\n\r\n"
PATIENCE_S = 60.0
"""After the last arrival; what has no answer by then has failed."""
DRAWS = 1000
BLOCK = 50
"""Requests that are drawn together for an interval: one that waited says something of those beside it."""
Ask = TypeVar("Ask")


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

    @property
    def totals_s(self) -> Sequence[float]:
        """In the order of arrival; one that has failed took for ever."""
        return [float("inf") if each.error else each.total_s for each in self.outcomes]

    @property
    def ttfts_s(self) -> Sequence[float]:
        """As `totals_s`, to the first token."""
        return [float("inf") if each.error else each.ttft_s for each in self.outcomes]

    def total_s(self, share: float) -> float:
        return percentile(self.totals_s, share)

    def ttft_s(self, share: float) -> float:
        return percentile(self.ttfts_s, share)


def even(per_s: float, seconds: float) -> list[float]:
    return [number / per_s for number in range(int(per_s * seconds))]


def poisson(per_s: float, seconds: float, seed: int) -> list[float]:
    chance = random.Random(seed)  # noqa: S311  # the same arrivals each time
    due, times = 0.0, []
    while (due := due + chance.expovariate(per_s)) < seconds:
        times.append(due)
    return times


def prompts(count: int, *, words: int, seed: int) -> Iterator[str]:
    """What the user says; no two of them alike."""
    chance = random.Random(seed)  # noqa: S311
    for _ in range(count):
        yield "Go on with:" + "".join(chance.choice(WORDS) for _ in range(words))


def as_text(prompt: str, system: str | None) -> str:
    """A chat as ChatML, for those who know none."""
    turns = ([("system", system)] if system else []) + [("user", prompt)]
    before = "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns)
    return f"{before}<|im_start|>assistant\n"


def chats(count: int, *, words: int, answer_tokens: int, seed: int, more: Mapping[str, object]) -> Iterator[bytes]:
    """Bodies of streamed chats, of these prompts."""
    for text in prompts(count, words=words, seed=seed):
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
    try:
        return await send(client.ask, arrivals, bodies)
    finally:
        client.close()


async def send(
    ask: Callable[[Ask, float], Coroutine[None, None, Outcome]], arrivals: Sequence[float], asked: Sequence[Ask]
) -> Run:
    """`ask` is given one of `asked`, and when it was due in time of time.perf_counter(). `arrivals`: seconds from now."""
    begin = time.perf_counter()
    tasks: list[asyncio.Task[Outcome]] = []
    with contextlib.suppress(TimeoutError):  # those that are cut off have failed
        async with asyncio.timeout(arrivals[-1] + PATIENCE_S), asyncio.TaskGroup() as group:
            for due, each in zip(arrivals, asked, strict=True):
                await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
                tasks.append(group.create_task(ask(each, begin + due)))
    nothing = Outcome(PATIENCE_S, PATIENCE_S, 0, 0, "no answer in time")
    outcomes = [nothing if task.cancelled() else task.result() for task in tasks]
    outcomes += [nothing] * (len(arrivals) - len(outcomes))
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


def interval(runs: Sequence[Sequence[float]], share: float, seed: int = 0) -> tuple[float, float]:
    """Between what the median of the runs' percentiles lies with 95 %, by bootstrap; `runs`: values in the order of arrival.

    Drawn are runs, and of each of them blocks of requests: drawn one by one, those of a queue would look independent. Of three
    runs it is rather too wide: by a quarter where they are all alike.
    """
    chance = random.Random(seed)  # noqa: S311
    found = sorted(median(percentile(redrawn(chance.choice(runs), chance), share) for _ in runs) for _ in range(DRAWS))
    return percentile(found, 0.025), percentile(found, 0.975)


def redrawn(values: Sequence[float], chance: random.Random) -> Sequence[float]:
    """As many, by blocks; the last value's neighbour is the first."""
    twice = [*values, *values]
    starts = [chance.randrange(len(values)) for _ in range(-(-len(values) // BLOCK))]
    return [value for start in starts for value in twice[start : start + BLOCK]][: len(values)]


def with_interval(runs: Sequence[Sequence[float]], share: float) -> str:
    """In milliseconds: the median of the runs' percentiles, and between what it lies with 95 %."""
    middle = median(percentile(values, share) for values in runs)
    low, high = interval(runs, share)
    return f"{1e3 * middle:,.0f} ({1e3 * low:,.0f} to {1e3 * high:,.0f})"
