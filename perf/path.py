"""What the way costs from the engine to the client: all of it is real but the engine, which is scripted and computes nothing.

Streams of chats, each client with one at a time, more and more of them, until the slowest take twice as long as with few. CPU
time is that of a system's processes, and not the clients':

ours                       frontend, Triton, the backend's stub (with the scripted engine in it) and Valkey
vllm serve, no engine      vLLM's API server with ready text where AsyncLLM stands: the equal of ours
vllm serve, no model       its API server's process in `vllm serve` as it comes, without that of EngineCore; see vllm_scripted.py
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import msgspec
import psutil

from deploy.launcher import models
from frontend import settings
from frontend.domain import model_card
from perf import machine, open_loop, plot, service, vllm_server

ANSWER_TOKENS = 256
TOKEN_INTERVAL_MS = 20
PARTS = {
    "granian": "frontend",
    "tritonserver": "Triton",
    "triton_python_backend_stub": "stub",
    "valkey-server": "Valkey",
}
System = Literal["ours", "vllm serve, no engine", "vllm serve, no model"]
TARGET_US, TARGET_TIMES = 25, 3
"""Of a token, as much at most; and so many times less than vLLM's API server, at least."""
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


Found = Mapping[System, Sequence[Level]]


class Running(msgspec.Struct, frozen=True):
    """A system that can be asked."""

    url: str
    """Without /v1."""
    key: str
    model: str
    cpu_s: Callable[[], Mapping[str, float]]
    """CPU seconds of each part's processes so far; all of them live as long as the system."""


def measure(plan: Plan, say: Say) -> dict[System, list[Level]]:
    found: dict[System, list[Level]] = {}
    for system in get_args(System):
        with started(system, plan) as running:
            found[system] = levels(running, plan, system, say)
    return found


def levels(running: Running, plan: Plan, system: System, say: Say) -> list[Level]:
    asyncio.run(level(running, plan.levels[0], 2))  # warm
    found: list[Level] = []
    for streams in plan.levels:
        one = asyncio.run(level(running, streams, plan.seconds))
        found.append(one)
        say(f"{system}: {one}")
        if one.total_p99_s > 2 * found[0].total_p99_s:
            break
    return found


@contextmanager
def started(system: System, plan: Plan) -> Iterator[Running]:
    most = 2 * max(plan.levels)
    if system != "ours":
        with vllm_scripted(system, most) as running:
            yield running
        return
    chosen: dict[str, object] = {
        "ENGINE_BACKEND": "scripted",
        "ENGINE_SCRIPTED_TOKEN_INTERVAL_MS": TOKEN_INTERVAL_MS,
        "ENGINE_MAX_NUM_SEQS": most,
        "ENGINE_MAX_QUEUED": 2 * most,
        "EMBEDDER_ENABLED": "false",
        "LOG_LEVEL": "warning",
    }
    with service.running(**chosen) as ours:
        yield Running(ours.url, ours.new_key("path"), "hermes-2", lambda: cpu_s(ours.pid))


@contextmanager
def vllm_scripted(system: System, most: int) -> Iterator[Running]:
    """vLLM as it comes, but for what is scripted. `most`: streams at a time."""
    chosen = settings.load({"HERMES2_MODELS": str(Path(".hermes2/models").absolute()), **os.environ})
    folder = models.prepare(chosen.model, chosen.models_dir, chosen.engine.environment, print)
    card = model_card.read(folder)
    (port,) = service.free_ports(1)
    files, programs = model_card.files_of(folder, card), chosen.engine.environment / "bin"
    argv: list[object]
    if system == "vllm serve, no engine":
        argv = [programs / "python", "-m", "perf.vllm_scripted", "serve", files]
    else:
        argv = [programs / "vllm", "serve", files]
        argv += ["--distributed-executor-backend", "perf.vllm_scripted.ScriptedExecutor"]
    argv += ["--served-model-name", card.id, "--dtype", "bfloat16", "--max-model-len", chosen.engine.max_model_len]
    argv += ["--max-num-seqs", most, "--max-num-batched-tokens", 128 * most]  # all prompts can be read in one step
    argv += ["--additional-config", f'{{"step_ms": {TOKEN_INTERVAL_MS}}}', "--host", "127.0.0.1", "--port", port]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": str(settings.ROOT)}
    with TemporaryDirectory() as home:
        log = Path(home) / "vllm.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(each) for each in argv],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            vllm_server.wait_for(url, log, process)
            server = psutil.Process(process.pid)  # EngineCore is its child, and not counted
            yield Running(url, "none", card.id, lambda: {"API server": own_cpu_s(server)})
        finally:
            service.stop(process)


async def level(running: Running, streams: int, seconds: float) -> Level:
    client = open_loop.Client(running.url, running.key)
    more = {"model": running.model}
    bodies = open_loop.chats(10**9, words=27, answer_tokens=ANSWER_TOKENS, seed=streams, more=more)
    outcomes: list[open_loop.Outcome] = []

    async def one() -> None:
        while time.perf_counter() < until:
            outcomes.append(await client.ask(next(bodies), time.perf_counter()))

    before, began = running.cpu_s(), time.perf_counter()
    until = began + seconds
    await asyncio.gather(*(one() for _ in range(streams)))
    took_s = time.perf_counter() - began
    used = {part: after - before[part] for part, after in running.cpu_s().items()}
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
    """Of each part of our service."""
    used: defaultdict[str, float] = defaultdict(float)
    for part, process in parts(launcher):
        used[part] += own_cpu_s(process)
    return used


def own_cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def parts(launcher: int) -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.Process(launcher).children(recursive=True):
        command = " ".join(process.cmdline()[:3])
        part = next((part for name, part in PARTS.items() if name in command), None)
        if part is not None:
            yield part, process


def pictures(found: Found) -> list[plot.Panel]:
    ours = found["ours"]
    parts = {name: [each.cpu_us_per_token.get(name, 0) for each in ours] for name in PARTS.values()}
    cost: dict[str, list[plot.Point]] = {
        system: [plot.point(each.streams, each.us_per_token) for each in some] for system, some in found.items()
    }
    slowest = {
        "answer": [plot.point(each.streams, each.total_p99_s) for each in ours],
        "first token": [plot.point(each.streams, each.ttft_p99_s) for each in ours],
    }
    return [
        plot.Lines(title="CPU per token", x="streams", y="µs", lines=cost, mark=TARGET_US),
        plot.Stack(title="CPU per token, ours", x="streams", y="µs", at=[each.streams for each in ours], parts=parts),
        plot.Lines(title="p99, ours", x="streams", y="s", lines=slowest, logarithmic=True),
    ]


def targets(found: Found) -> Iterator[str]:
    """A line for each."""
    ours = found["ours"]
    most = max(ours, key=lambda each: each.tokens_per_s)
    verdict = "met" if most.us_per_token <= TARGET_US else "missed"
    saturated = f"where it gives most tokens/s ({most.streams} streams)"
    yield f"- CPU per token {saturated}: {most.us_per_token:.1f} µs, the target is {TARGET_US} µs at most: {verdict}"
    vllm = {each.streams: each.us_per_token for each in found["vllm serve, no engine"]}
    times = [vllm[each.streams] / each.us_per_token for each in ours if each.streams in vllm]
    verdict = "met" if min(times) >= TARGET_TIMES else "missed"
    share = f"{min(times):.1f} to {max(times):.1f} times ours"
    yield f"- CPU per token of `vllm serve, no engine`: {share}, the target is {TARGET_TIMES} times at least: {verdict}"


def beside(found: Found) -> list[str]:
    """A table of all systems, a row for each level."""
    lines = [
        "| system | streams | tokens/s | TTFT p99 | answer p99 | CPU-seconds per 1,000 tokens | of ours | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    of_ours = {each.streams: each.us_per_token for each in found["ours"]}
    for system, some in found.items():
        for each in some:
            times = f"{each.us_per_token / of_ours[each.streams]:.2f}" if each.streams in of_ours else "-"
            lines.append(
                f"| {system} | {each.streams} | {each.tokens_per_s:,.0f} | {each.ttft_p99_s * 1e3:,.0f} ms |"
                f" {each.total_p99_s:.2f} s | {each.us_per_token / 1e3:.4f} | {times} | {each.errors} |"
            )
    return lines


BESIDE = (
    "The same clients and bodies, one system after the other. `no engine`: vLLM's API server with ready text where AsyncLLM"
    " stands, which our scripted engine stands for as well; `no model`: `vllm serve` as it comes, of which only the workers are"
    " scripted: the CPU of its API server's process, with AsyncLLM in it, and without that of EngineCore."
)


def report(found: Found) -> str:
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
        for each in found["ours"]
    ]
    table = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows]
    others = ["## Beside vLLM's API server", "", BESIDE, "", *beside(found)]
    return "\n".join(["# What the way costs", "", how, "", *table, "", *others, "", *targets(found), ""])
