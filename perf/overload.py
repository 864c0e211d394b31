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
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx
import msgspec

from frontend.services.limits.queue import SLOTS_PER_KEPT_ONE
from perf import machine, open_loop, service
from perf.overload_load import ANSWER_TOKENS, Done, Heard, Load, Refusal, percentile

TIMES = (1, 2, 4, 10)
NOISY_TIMES = 20
QUIET_PER_S = 1.0
LOOK_S = 1.0
ALONE = "quiet tenant, alone on an idle engine"
BESIDE_ONE = "quiet tenant, beside one at its share"
BESIDE_NOISY = f"quiet tenant, beside {NOISY_TIMES} x as much"
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
    rounds: int = 1
    """Of all phases; a machine is not equally fast all the time."""
    scripted: bool = False

    @property
    def clients(self) -> int:
        """That one tenant fills the engine with."""
        return self.slots - self.slots // SLOTS_PER_KEPT_ONE


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a phase in one round."""

    heard: Heard
    begin: float
    end: float
    engine_waiting: float
    """Most that waited inside of the engine."""
    queued: float
    """Most that waited in the queue before it."""

    @property
    def tokens_per_s(self) -> float:
        return sum(each.tokens_in(self.begin, self.end) for each in self.heard.done) / (self.end - self.begin)

    @property
    def let_in(self) -> Sequence[Done]:
        return [each for each in self.heard.done if self.begin <= each.sent < self.end]

    @property
    def refused(self) -> Sequence[Refusal]:
        return [each for each in self.heard.refused if self.begin <= each.sent < self.end]


class Phase:
    """Of all rounds; times of all their requests together."""

    def __init__(self, *windows: Window) -> None:
        self.windows = windows
        self._ttft_s = [each.ttft_s for window in windows for each in window.let_in]
        refused = [each for window in windows for each in window.refused]
        self._refusal_s = [each.ended - each.sent for each in refused]
        self._retry_after_s = [each.retry_after_s for each in refused]
        self.let_in, self.refused = len(self._ttft_s), len(refused)
        self.failed = sum(len(window.heard.failed) for window in windows)

    @property
    def tokens_per_s(self) -> Sequence[float]:
        """Of each round."""
        return [window.tokens_per_s for window in self.windows]

    def ttft_s(self, share: float) -> float:
        return percentile(self._ttft_s, share)

    def refusal_s(self, share: float) -> float:
        return percentile(self._refusal_s, share)

    def retry_after_s(self, share: float) -> float:
        return percentile(self._retry_after_s, share)

    def of(self, peaks: Sequence[float]) -> float:
        """Tokens per second, as a share of the same round's."""
        return median(own / peak for own, peak in zip(self.tokens_per_s, peaks, strict=True))

    def __str__(self) -> str:
        return (
            f"{median(self.tokens_per_s):.0f} tokens/s; first token p50 {self.ttft_s(0.5):.3f} s, p99 {self.ttft_s(0.99):.3f} s;"
            f" {self.let_in} let in, {self.refused} refused, p99 {self.refusal_s(0.99):.3f} s; {self.failed} failed"
        )


class Found(msgspec.Struct, frozen=True):
    times: dict[int, Phase]
    alone: Phase
    beside_one: Phase
    """That asks for its share."""
    beside_noisy: Phase

    @property
    def peaks(self) -> Sequence[float]:
        """The most tokens per second, of each round."""
        return [max(each) for each in zip(*(phase.tokens_per_s for phase in self.times.values()), strict=True)]


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
    windows: defaultdict[str, list[Window]] = defaultdict(list)

    async def see(name: str, clients: int, quiet: str | None = None) -> None:
        window = await run(running, plan, loud=(loud, clients) if clients else None, quiet=quiet)
        windows[name].append(window)
        say(f"{name}: {Phase(window)}")

    for _ in range(plan.rounds):
        for times in TIMES:
            await see(f"{times} x", times * plan.clients)
    for _ in range(plan.rounds):  # afterwards: for a while slots are kept for the quiet one
        await see(ALONE, 0, quiet)
        await see(BESIDE_ONE, plan.slots // 2, quiet)
        await see(BESIDE_NOISY, NOISY_TIMES * plan.slots // 2, quiet)
    return Found(
        {times: Phase(*windows[f"{times} x"]) for times in TIMES},
        *(Phase(*windows[name]) for name in (ALONE, BESIDE_ONE, BESIDE_NOISY)),
    )


async def run(
    running: service.Service,
    plan: Plan,
    *,
    loud: tuple[str, int] | None = None,
    quiet: str | None = None,
    seconds: float | None = None,
) -> Window:
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
    return Window(heard=measured.heard, begin=begin, end=end, engine_waiting=watcher.engine, queued=watcher.queue)


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


COLUMNS = (
    "",
    "tokens/s",
    "of the peak",
    "let in",
    "TTFT p50",
    "TTFT p99",
    "of the first row's",
    "refused",
    "refusal p50",
    "refusal p99",
    "Retry-After p50",
    "waiting in the engine, most",
    "in the queue, most",
    "failed",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n" + "|---" * len(COLUMNS) + "|"


def row(name: str, phase: Phase, peaks: Sequence[float], first: Phase) -> str:
    cells = [
        name,
        open_loop.spread(phase.tokens_per_s, 1),
        f"{phase.of(peaks):.0%}",
        str(phase.let_in),
        f"{phase.ttft_s(0.5) * 1e3:.0f} ms",
        f"{phase.ttft_s(0.99) * 1e3:.0f} ms",
        f"{phase.ttft_s(0.99) / first.ttft_s(0.99):.2f}",
        str(phase.refused),
        f"{phase.refusal_s(0.5) * 1e3:.0f} ms" if phase.refused else "",
        f"{phase.refusal_s(0.99) * 1e3:.0f} ms" if phase.refused else "",
        f"{phase.retry_after_s(0.5):.1f} s" if phase.refused else "",
        f"{max(window.engine_waiting for window in phase.windows):.0f}",
        f"{max(window.queued for window in phase.windows):.0f}",
        str(phase.failed),
    ]
    return "| " + " | ".join(cells) + " |"


def report(found: Found, plan: Plan) -> str:
    engine = "the scripted engine" if plan.scripted else "smollm2-135m"
    waiting = "the default" if plan.max_waiting is None else plan.max_waiting
    how = (
        f"`python -m perf overload` on {machine.describe()}: {engine}, {plan.slots} slots ({plan.clients} for one tenant),"
        f" admission.max_waiting {waiting}; chats of about 100 prompt and {ANSWER_TOKENS} answer tokens, streamed;"
        f" {plan.rounds} rounds of the phases of each table, {plan.seconds:.0f} s of each after {plan.warm_s:.0f} s: the median"
        " of their tokens per second, and of what that is of the same round's peak, with times of all requests together."
        " Clients run on the same machine. TTFT is from the sending of the attempt that was let in, with its time in the queue."
    )
    overload = [row(f"{times} x", phase, found.peaks, found.times[1]) for times, phase in found.times.items()]
    neighbours = [
        row(name, phase, found.peaks, found.beside_one)
        for name, phase in ((BESIDE_ONE, found.beside_one), (BESIDE_NOISY, found.beside_noisy), (ALONE, found.alone))
    ]
    loop = "Closed loop: each client has one request at a time, and where it is refused it comes again after `retry-after-ms`."
    return "\n".join(
        ["# Overload", "", how, "", loop, "", HEAD, *overload, "", "## A noisy neighbour", "", HEAD, *neighbours, ""]
    )
