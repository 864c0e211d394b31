"""Whether the service is the same after half an hour: memory of each part, open files, threads, times, under a steady load.

The whole service with the real engine. Requests come at an even pace, whatever becomes of those before them: mostly chats as in
perf/headline.py, turns of conversations through /v1/responses, embeddings (perf/soak_load.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import msgspec

from deploy.launcher import budget, models, profiles
from frontend import settings as settings_module
from frontend.domain import model_card
from perf import machine, open_loop, plot, service, soak_budget, soak_load
from perf.overload_load import percentile
from perf.soak_family import PARTS, Holding, holdings
from perf.soak_trend import SMALL_SHARE, Trend, trend

WARM_SHARE = 0.2
"""Of the run, from its beginning: caches fill, the KV cache is touched for the first time. It counts for peaks alone."""
ALL = "all"
MB = 1e6
KINDS: Mapping[soak_load.Kind, str] = {"chat": "chats", "turn": "turns of conversations", "embedding": "embeddings"}
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    per_s: float
    seconds: float
    sample_s: float = 10.0
    """Between two looks at the family."""


class Sample(msgspec.Struct, frozen=True):
    at_s: float
    """From the first arrival."""
    parts: Mapping[str, Holding]

    @property
    def all(self) -> Holding:
        return sum(self.parts.values(), Holding())

    def of(self, part: str) -> Holding:
        return self.all if part == ALL else self.parts.get(part, Holding())


class Found(msgspec.Struct, frozen=True, kw_only=True):
    samples: Sequence[Sample]
    kinds: Sequence[soak_load.Kind]
    run: open_loop.Run
    """An outcome for each of `kinds`."""
    budget: budget.Budget
    model: str

    @property
    def parts(self) -> Sequence[str]:
        return [part for part in PARTS if any(part in sample.parts for sample in self.samples)]

    def peak(self, part: str) -> Holding:
        """Of each figure, at its own time."""
        seen = [sample.of(part) for sample in self.samples]
        return Holding(
            *(max(getattr(each, name) for each in seen) for name in ("pss_bytes", "rss_bytes", "files", "threads"))
        )

    def processes(self, part: str) -> int:
        """That were ever seen: one that was replaced makes two."""
        return len({pid for sample in self.samples for pid in sample.of(part).pids})


def measure(plan: Plan, say: Say, **settings: object) -> Found:
    """`settings`: of the service, as environment variables without their prefix."""
    with service.running(LOG_LEVEL="warning", **settings) as running:
        chosen = profiles.applied(settings_module.load(running.environment), say)
        engine = chosen.engine
        folder = models.prepare(chosen.model, chosen.models_dir, engine.environment, say, engine.weights)
        card = model_card.read(folder)
        kinds = soak_load.kinds(int(plan.per_s * plan.seconds))
        run, samples = asyncio.run(soak(running, plan, kinds, say))
    return Found(samples=samples, kinds=kinds, run=run, budget=budget.plan(chosen, card), model=folder.name)


async def soak(
    running: service.Service, plan: Plan, kinds: Sequence[soak_load.Kind], say: Say
) -> tuple[open_loop.Run, Sequence[Sample]]:
    samples: list[Sample] = []
    over = asyncio.Event()
    async with soak_load.opened(running.url, running.new_key("soak")) as load, asyncio.TaskGroup() as group:
        group.create_task(watch(running.pid, plan, samples, over, say))
        try:
            run = await open_loop.send(load.ask, open_loop.even(plan.per_s, plan.seconds), kinds)
        finally:
            over.set()
    return run, samples


async def watch(launcher: int, plan: Plan, samples: list[Sample], over: asyncio.Event, say: Say) -> None:
    begin = time.perf_counter()
    while not over.is_set():
        at_s = time.perf_counter() - begin
        sample = Sample(at_s, await asyncio.to_thread(holdings, launcher))
        samples.append(sample)
        each = ", ".join(f"{part} {held.pss_bytes / MB:.0f}" for part, held in sample.parts.items())
        say(f"{at_s:.0f} s: {sample.all.pss_bytes / MB:.0f} MB: {each}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), plan.sample_s)


def warm(found: Found, plan: Plan) -> Sequence[Sample]:
    """The samples that count for slopes."""
    return [sample for sample in found.samples if WARM_SHARE * plan.seconds <= sample.at_s <= plan.seconds]


def of_memory(samples: Sequence[Sample], part: str, name: str) -> Trend:
    """`name`: of a figure of Holding; in MB and hours."""
    hours = [sample.at_s / 3600 for sample in samples]
    return trend(hours, [getattr(sample.of(part), name) / MB for sample in samples])


MEMORY_COLUMNS = (
    "part",
    "processes",
    "PSS, first to last, MB",
    "PSS, MB an hour",
    "RSS, MB an hour",
    "",
    "peak PSS, MB",
    "peak RSS, MB",
    "open files, first to last",
    "threads, first to last",
)


def memory_row(found: Found, samples: Sequence[Sample], part: str) -> str:
    pss, rss = (of_memory(samples, part, name) for name in ("pss_bytes", "rss_bytes"))
    peak = found.peak(part)
    cells = [
        part,
        str(found.processes(part)),
        first_to_last([sample.of(part).pss_bytes / MB for sample in samples], ".1f"),
        shown(pss),
        shown(rss),
        "grows" if pss.grows or rss.grows else "no slope",
        f"{peak.pss_bytes / MB:.1f}",
        f"{peak.rss_bytes / MB:.1f}",
        first_to_last([sample.of(part).files for sample in samples], ".0f"),
        first_to_last([sample.of(part).threads for sample in samples], ".0f"),
    ]
    return f"| {' | '.join(cells)} |"


def first_to_last(values: Sequence[float], form: str) -> str:
    """Medians of the first and of the last tenth."""
    some = max(1, len(values) // 10)
    return f"{median(values[:some]):{form}} to {median(values[-some:]):{form}}"


def shown(each: Trend) -> str:
    return f"{each.slope:+.1f} ({each.low:+.1f} to {each.high:+.1f})"


def times_row(found: Found, kind: soak_load.Kind) -> str:
    """Of the requests behind the warm-up, in the order of their arrival."""
    totals = [total_s for name, total_s in zip(found.kinds, found.run.totals_s, strict=True) if name == kind]
    requests, errors = len(totals), totals.count(math.inf)
    totals = totals[int(WARM_SHARE * requests) :]
    third = max(1, len(totals) // 3)
    cells = [KINDS[kind], str(requests), str(errors)]
    for share in (0.5, 0.95):
        first, last = percentile(totals[:third], share), percentile(totals[-third:], share)
        cells += [f"{1e3 * first:,.0f}", f"{1e3 * last:,.0f}", f"{last / first:.2f}"]
    return f"| {' | '.join(cells)} |"


def pictures(found: Found) -> list[plot.Panel]:
    minutes = [sample.at_s / 60 for sample in found.samples]
    held = {part: [sample.of(part).pss_bytes / 1e9 for sample in found.samples] for part in found.parts}
    grown = {
        part: [plot.point(at, gigabytes - each[0]) for at, gigabytes in zip(minutes, each, strict=True)]
        for part, each in held.items()
    }
    return [
        plot.Stack(title="PSS", x="minutes", y="GB", at=minutes, parts=held),
        plot.Lines(title="PSS, more than at the first look", x="minutes", y="GB", lines=grown),
    ]


def report(found: Found, plan: Plan) -> str:
    """As Markdown."""
    samples = warm(found, plan)
    peaks = {part: found.peak(part).pss_bytes for part in found.parts}
    trends = {part: of_memory(samples, part, "pss_bytes") for part in found.parts}
    rises = {part: MB * each.slope for part, each in trends.items() if each.rises}
    family, errors = found.peak(ALL).pss_bytes, found.run.errors
    how = (
        f"`python -m perf soak --minutes {plan.seconds / 60:g} --rate {plan.per_s:g}` on {machine.describe()}: {found.model};"
        f" the whole service under {plan.per_s:g} requests a second, evenly spaced, clients on the same machine. Of ten"
        f" requests {', '.join(f'{soak_load.PATTERN.count(kind)} are {name}' for kind, name in KINDS.items())}. The family is"
        f" looked at each {plan.sample_s:g} s. The first {WARM_SHARE:.0%} of the run warm it: they count for peaks and errors"
        " alone."
    )
    slopes = (
        "PSS: a process's own memory and its share of what it shares. Slopes are Theil and Sen's, with their 95 % intervals,"
        f" which take samples for independent. No slope: the interval holds zero or less, or the growth over the run is below"
        f" {SMALL_SHARE:.1%} of what there is. First and last: the medians of a tenth of the samples each."
    )
    memory = [memory_row(found, samples, part) for part in (*found.parts, ALL)]
    head = [f"| {' | '.join(MEMORY_COLUMNS)} |", "|---" * len(MEMORY_COLUMNS) + "|"]
    times = [
        "| | requests | errors | p50, first third, ms | last third, ms | ratio | p95, first third, ms | last third, ms | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
        *(times_row(found, kind) for kind in KINDS if kind in found.kinds),
    ]
    said = (
        f"{len(found.run.outcomes):,} requests, {found.run.served_per_s:.2f} served a second, {len(errors)} errors"
        f"{''.join(f'; {each}' for each in sorted(set(errors))[:5])}."
    )
    limit = (
        f"Peak PSS of the whole family: {family / 1e9:.2f} GB, {family / found.budget.limit_bytes:.0%} of"
        f" {found.budget.limit_bytes / 1e9:.2f} GB ({found.budget.limit_source}), {family / found.budget.total_bytes:.0%} of"
        f" the {found.budget.total_bytes / 1e9:.2f} GB that the budget sums up to. Of each share: the sum of its processes'"
        " peaks, each at its own time since the service was ready. Full after: at the slopes above, of parts whose interval is"
        " above zero."
    )
    return "\n".join(
        [
            *("# A soak", "", how, "", "## Memory", "", slopes, "", *head, *memory, ""),
            *("## Times", "", said, "", *times, ""),
            *("## The budget", "", limit, "", *soak_budget.compared(found.budget, peaks, rises), ""),
            *("## The production model", "", *soak_budget.production(), ""),
        ]
    )
