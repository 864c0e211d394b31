"""What the way costs from the engine to the client: all of it is real but the engine, which is scripted and computes nothing.

Streams of chats, each client with one at a time, more and more of them, until the slowest take twice as long as with few. CPU
time is that of the service's processes: frontend, Triton, the backend's stub (with the scripted engine in it) and Valkey.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import psutil

from perf import machine, open_loop, service

ANSWER_TOKENS = 256
TOKEN_INTERVAL_MS = 20
PARTS = {
    "granian": "frontend",
    "tritonserver": "Triton",
    "triton_python_backend_stub": "stub",
    "valkey-server": "Valkey",
}
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    levels: Sequence[int]
    """Streams at a time."""
    seconds: float
    """Of each."""


class Level(msgspec.Struct, frozen=True):
    streams: int
    tokens_per_s: float
    ttft_p99_s: float
    total_p99_s: float
    cpu_us_per_token: Mapping[str, float]
    """By part."""
    cores: float
    """That all parts together were busy with."""
    errors: int

    @property
    def us_per_token(self) -> float:
        return sum(self.cpu_us_per_token.values())


def measure(plan: Plan, say: Say) -> list[Level]:
    settings: dict[str, object] = {
        "ENGINE_BACKEND": "scripted",
        "ENGINE_SCRIPTED_TOKEN_INTERVAL_MS": TOKEN_INTERVAL_MS,
        "ENGINE_MAX_NUM_SEQS": 2 * max(plan.levels),
        "ENGINE_MAX_QUEUED": 4 * max(plan.levels),
        "EMBEDDER_ENABLED": "false",
        "LOG_LEVEL": "warning",
    }
    found: list[Level] = []
    with service.running(**settings) as running:
        key = running.new_key("path")
        asyncio.run(level(running, key, plan.levels[0], 2))  # warm
        for streams in plan.levels:
            one = asyncio.run(level(running, key, streams, plan.seconds))
            found.append(one)
            say(f"{streams} streams: {one}")
            if one.total_p99_s > 2 * found[0].total_p99_s:
                break
    return found


async def level(running: service.Service, key: str, streams: int, seconds: float) -> Level:
    client = open_loop.Client(running.url, key)
    more = {"model": "hermes-2"}
    bodies = open_loop.chats(10**9, words=27, answer_tokens=ANSWER_TOKENS, seed=streams, more=more)
    outcomes: list[open_loop.Outcome] = []

    async def one() -> None:
        while time.perf_counter() < until:
            outcomes.append(await client.ask(next(bodies), time.perf_counter()))

    before, began = cpu_s(running.pid), time.perf_counter()
    until = began + seconds
    await asyncio.gather(*(one() for _ in range(streams)))
    took_s = time.perf_counter() - began
    used = {part: after - before[part] for part, after in cpu_s(running.pid).items()}
    client.close()
    run = open_loop.Run(outcomes, took_s)
    tokens = sum(each.answer_tokens for each in outcomes)
    return Level(
        streams=streams,
        tokens_per_s=tokens / took_s,
        ttft_p99_s=run.ttft_s(0.99),
        total_p99_s=run.total_s(0.99),
        cpu_us_per_token={part: 1e6 * seconds_used / max(tokens, 1) for part, seconds_used in used.items()},
        cores=sum(used.values()) / took_s,
        errors=len(run.errors),
    )


def cpu_s(launcher: int) -> Mapping[str, float]:
    """CPU seconds of each part's processes so far; all of them live as long as the service."""
    used: defaultdict[str, float] = defaultdict(float)
    for part, process in parts(launcher):
        times = process.cpu_times()
        used[part] += times.user + times.system
    return used


def parts(launcher: int) -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.Process(launcher).children(recursive=True):
        command = " ".join(process.cmdline()[:3])
        part = next((part for name, part in PARTS.items() if name in command), None)
        if part is not None:
            yield part, process


def report(found: Sequence[Level]) -> str:
    """As Markdown."""
    names = list(PARTS.values())
    how = (
        f"`python -m perf path` on {machine.describe()}: the scripted engine, {ANSWER_TOKENS} tokens an answer, one each"
        f" {TOKEN_INTERVAL_MS} ms, streamed; each client has one request at a time. CPU: microseconds per streamed token, with"
        " the requests' own share in them. Clients run on the same machine and are not counted."
    )
    columns = [
        "streams",
        "tokens/s",
        "TTFT p99",
        "answer p99",
        "CPU per token",
        *names,
        "cores",
        "tokens/s per core",
        "errors",
    ]
    rows = [
        "| "
        + " | ".join(
            [
                str(each.streams),
                f"{each.tokens_per_s:,.0f}",
                f"{each.ttft_p99_s * 1e3:,.0f} ms",
                f"{each.total_p99_s:.2f} s",
                f"{each.us_per_token:.1f} µs",
                *(f"{each.cpu_us_per_token.get(name, 0):.1f}" for name in names),
                f"{each.cores:.2f}",
                f"{each.tokens_per_s / max(each.cores, 1e-9):,.0f}",
                str(each.errors),
            ]
        )
        + " |"
        for each in found
    ]
    return "\n".join(
        ["# What the way costs", "", how, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows, ""]
    )
