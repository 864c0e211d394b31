"""What is left of the service when more is asked of it than it can do, and what one tenant notices of another.

Overload: as many clients as one tenant gets slots, then 2, 4 and 10 times as many. The loop is closed: each client has one
request at a time; where it is refused it waits as long as `retry-after-ms` says, as the OpenAI SDK does, and asks again until it
is let in. Neighbours: a tenant that asks once a second: alone; beside one that has as many clients as half of the slots, which is
its share; and beside one that has 20 times as many.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import msgspec

from frontend.services.limits.queue import SLOTS_PER_KEPT_ONE
from perf import machine, service
from perf.overload_load import ANSWER_TOKENS, Load, percentile, within

TIMES = (1, 2, 4, 10)
NOISY_TIMES = 20
QUIET_PER_S = 1.0
LOOK_S = 1.0
WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{.*\})? (\S+)$", re.MULTILINE)
QUEUED = re.compile(r"^hermes2_admission_waiting(?:\{.*\})? (\S+)$", re.MULTILINE)
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    slots: int
    max_waiting: int | None
    """None: the default."""
    seconds: float
    """That are measured of each phase."""
    warm_s: float
    """Before them."""
    scripted: bool = False

    @property
    def clients(self) -> int:
        """That one tenant fills the engine with."""
        return self.slots - self.slots // SLOTS_PER_KEPT_ONE


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    tokens_per_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    let_in: int
    refused: int
    refusal_p99_s: float
    retry_after_p50_s: float
    engine_waiting: float
    """Most that waited inside of the engine."""
    queued: float
    """Most that waited in the queue before it."""
    failed: int


class Found(msgspec.Struct, frozen=True):
    times: dict[int, Phase]
    alone: Phase
    beside_one: Phase
    """That asks for its share."""
    beside_noisy: Phase


def measure(plan: Plan, say: Say) -> Found:
    with TemporaryDirectory() as folder:
        plans = Path(folder) / "plans.toml"
        plans.write_text("[plans.default]\n")  # no limits: it is the queue that is measured
        settings: dict[str, object] = {
            "ENGINE_MAX_NUM_SEQS": plan.slots,
            "EMBEDDER_ENABLED": "false",
            "LIMITS_PLANS": plans,
            "LOG_LEVEL": "warning",
        }
        if plan.max_waiting is not None:
            settings["ADMISSION_MAX_WAITING"] = plan.max_waiting
        if plan.scripted:
            settings |= {"ENGINE_BACKEND": "scripted", "ENGINE_SCRIPTED_TOKEN_INTERVAL_MS": 5}
        with service.running(**settings) as running:
            return asyncio.run(phases(running, plan, say))


async def phases(running: service.Service, plan: Plan, say: Say) -> Found:
    loud, quiet = (running.new_key(tenant) for tenant in ("loud", "quiet"))
    await run(running, plan, loud=(loud, plan.clients), seconds=2)  # warm
    found = {}
    for times in TIMES:
        found[times] = await run(running, plan, loud=(loud, times * plan.clients))
        say(f"{times} x: {found[times]}")
    alone = await run(running, plan, quiet=quiet)
    say(f"quiet, alone: {alone}")
    one = await run(running, plan, loud=(loud, plan.slots // 2), quiet=quiet)
    say(f"quiet, beside one at its share: {one}")
    noisy = await run(running, plan, loud=(loud, NOISY_TIMES * plan.slots // 2), quiet=quiet)
    say(f"quiet, beside a noisy one: {noisy}")
    return Found(found, alone, one, noisy)


async def run(
    running: service.Service,
    plan: Plan,
    *,
    loud: tuple[str, int] | None = None,
    quiet: str | None = None,
    seconds: float | None = None,
) -> Phase:
    """`loud`: a key, and how many clients have it. Of both the quiet one is measured."""
    begin = time.monotonic() + plan.warm_s
    end = begin + (seconds or plan.seconds)
    async with asyncio.TaskGroup() as group:
        watcher = Watcher(running)
        group.create_task(watcher.watch(end))
        measured: Load | None = None
        if loud is not None:
            measured = Load(running.url, loud[0], seed=loud[1])
            group.create_task(measured.closed(loud[1], end))
        if quiet is not None:
            measured = Load(running.url, quiet, seed=0)
            group.create_task(measured.open(QUIET_PER_S, end))
    assert measured is not None
    return summary(measured, watcher, begin, end)


class Watcher:
    """What waits where, at its most."""

    def __init__(self, running: service.Service) -> None:
        self.engine = self.queue = 0.0
        self._running = running

    async def watch(self, until: float) -> None:
        headers = {"authorization": f"Bearer {self._running.key}"}
        async with httpx.AsyncClient(base_url=self._running.url, headers=headers, timeout=30) as client:
            while time.monotonic() < until:
                text = (await client.get("/metrics")).text
                self.engine = max([self.engine, *map(float, WAITING.findall(text))])
                self.queue = max([self.queue, *map(float, QUEUED.findall(text))])
                await asyncio.sleep(LOOK_S)


def summary(load: Load, watcher: Watcher, begin: float, end: float) -> Phase:
    heard = load.heard
    ttft = [each.ttft_s for each in within(heard.done, begin, end)]
    refused = [each for each in heard.refused if begin <= each.sent < end]
    return Phase(
        tokens_per_s=sum(each.tokens_in(begin, end) for each in heard.done) / (end - begin),
        ttft_p50_s=percentile(ttft, 0.5),
        ttft_p99_s=percentile(ttft, 0.99),
        let_in=len(ttft),
        refused=len(refused),
        refusal_p99_s=percentile([each.ended - each.sent for each in refused], 0.99),
        retry_after_p50_s=percentile([each.retry_after_s for each in refused], 0.5),
        engine_waiting=watcher.engine,
        queued=watcher.queue,
        failed=len(heard.failed),
    )


HEAD = (
    "| | tokens/s | of the peak | let in | TTFT p50 | TTFT p99 | of the first row's | refused | refusal p99 | Retry-After p50 |"
    " waiting in the engine, most | in the queue, most | failed |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, phase: Phase, peak: float, first: Phase) -> str:
    cells = [
        name,
        f"{phase.tokens_per_s:.0f}",
        f"{phase.tokens_per_s / peak:.0%}",
        str(phase.let_in),
        f"{phase.ttft_p50_s * 1e3:.0f} ms",
        f"{phase.ttft_p99_s * 1e3:.0f} ms",
        f"{phase.ttft_p99_s / first.ttft_p99_s:.2f}",
        str(phase.refused),
        f"{phase.refusal_p99_s * 1e3:.0f} ms" if phase.refused else "",
        f"{phase.retry_after_p50_s:.1f} s" if phase.refused else "",
        f"{phase.engine_waiting:.0f}",
        f"{phase.queued:.0f}",
        str(phase.failed),
    ]
    return "| " + " | ".join(cells) + " |"


def report(found: Found, plan: Plan) -> str:
    peak = max(phase.tokens_per_s for phase in found.times.values())
    first = found.times[1]
    engine = "the scripted engine" if plan.scripted else "smollm2-135m"
    waiting = "the default" if plan.max_waiting is None else plan.max_waiting
    how = (
        f"`python -m perf overload` on {machine.describe()}: {engine}, {plan.slots} slots ({plan.clients} for one tenant),"
        f" admission.max_waiting {waiting}; chats of about 100 prompt and {ANSWER_TOKENS} answer tokens, streamed;"
        f" {plan.seconds:.0f} s of each phase after {plan.warm_s:.0f} s. Clients run on the same machine. TTFT is from the"
        " sending of the attempt that was let in, with its time in the queue."
    )
    overload = [row(f"{times} x", phase, peak, first) for times, phase in found.times.items()]
    neighbours = [
        row("quiet tenant, beside one at its share", found.beside_one, peak, found.beside_one),
        row(f"quiet tenant, beside {NOISY_TIMES} x as much", found.beside_noisy, peak, found.beside_one),
        row("quiet tenant, alone on an idle engine", found.alone, peak, found.beside_one),
    ]
    loop = "Closed loop: each client has one request at a time, and where it is refused it comes again after `retry-after-ms`."
    return "\n".join(
        ["# Overload", "", how, "", loop, "", HEAD, *overload, "", "## A noisy neighbour", "", HEAD, *neighbours, ""]
    )
