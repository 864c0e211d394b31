"""Ours beside vLLM's own server and NVIDIA's backend: the same machine, prompts and arrivals, each alone on it, several rounds.

ours                the whole service: keys, limits, storage, Triton
vllm serve, stock   as it comes, bfloat16
vllm serve, tuned   with the weights, arguments, threads and libraries that our launcher gives to the engine; its worker is vLLM's
NVIDIA's backend    in our Triton, with those as well; it has no HTTP, no keys, no storage, and is given prompts as ready text
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Literal, get_args

import msgspec

from perf import headline, machine, nvidia, open_loop, plot, service, vllm_server
from perf.capacity import MOST_S, Search

System = Literal["ours", "stock", "tuned", "nvidia"]
SYSTEMS: Sequence[System] = get_args(System)
NAMES: Mapping[System, str] = {
    "ours": "ours",
    "stock": "vllm serve, stock",
    "tuned": "vllm serve, tuned",
    "nvidia": "NVIDIA's backend",
}
TIMES: Mapping[System, float] = {"stock": 2.2, "tuned": 1.15, "nvidia": 1.2}
"""Ours shall serve so many times as much, at least."""
POISSON_P95_OF_TUNED = 0.8
"""At most."""
Series = Callable[[Sequence[float], int], Awaitable[open_loop.Run]]
"""Asks at these arrivals, in seconds from now, with the prompts of a seed."""
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    per_s: int
    seconds: float
    """Of each run at that rate."""
    probe_s: float
    """Of each run of the search for the capacity."""
    rounds: int
    systems: Sequence[System] = SYSTEMS
    nvidia: Path | None = None
    """A checkout of github.com/triton-inference-server/vllm_backend; None: it is not run."""


class Round(msgspec.Struct, frozen=True):
    even: open_loop.Run
    poisson: open_loop.Run
    probes: Sequence[tuple[int, float]]
    """Rates of a Poisson process, and the p95 at each, in seconds."""
    capacity_per_s: int
    """The highest rate of a Poisson process with a p95 of two seconds at most; 0: none."""


Found = Mapping[System, Sequence[Round]]


@contextmanager
def started(system: System, checkout: Path | None) -> Iterator[Series]:
    if system == "ours":
        with service.running(LOG_LEVEL="warning") as running:
            more: dict[str, object] = {"model": "hermes-2", "store": True}
            yield partial(headline.series, running.url, running.new_key("versus"), more=more)
    elif system == "nvidia":
        assert checkout is not None
        with nvidia.running(checkout) as backend:
            yield partial(nvidia.series, backend)
    else:
        with vllm_server.running("stock" if system == "stock" else "ours") as server:
            yield partial(headline.series, server.url, "none", more={"model": server.model})


def measure(plan: Plan, say: Say) -> Found:
    systems = [system for system in plan.systems if system != "nvidia" or plan.nvidia is not None]
    found: dict[System, list[Round]] = {system: [] for system in systems}
    for number in range(1, plan.rounds + 1):
        for system in systems:
            before = found[system][-1].capacity_per_s if found[system] else None
            with started(system, plan.nvidia) as series:
                one = asyncio.run(round_of(plan, series, number, before))
            found[system].append(one)
            say(f"{number}, {NAMES[system]}: {one.capacity_per_s}/s; even: {headline.line(one.even)}")
            say(f"{number}, {NAMES[system]}: Poisson: {headline.line(one.poisson)}")
    return found


async def round_of(plan: Plan, series: Series, number: int, before: int | None) -> Round:
    """`before`: the capacity that an earlier round has found."""
    await series(open_loop.even(plan.per_s / 2, headline.WARM_S), 0)
    even = await series(open_loop.even(plan.per_s, plan.seconds), number)
    poisson = await series(open_loop.poisson(plan.per_s, plan.seconds, number), number)
    search = Search(before)
    search.learn(plan.per_s, poisson)
    while (rate := search.next()) is not None:
        search.learn(rate, await series(open_loop.poisson(rate, plan.probe_s, 1000 * number + rate), rate))
    return Round(even, poisson, search.probes, search.capacity_per_s)


HEAD = headline.HEAD.replace("| arrivals |", "| system | arrivals |").replace("|---|", "|---|---|", 1)


def report(found: Found, plan: Plan) -> str:
    """As Markdown."""
    how = (
        f"`python -m perf versus --rounds {plan.rounds}` on {machine.describe()}: chats of about 60 prompt and"
        f" {headline.ANSWER_TOKENS} answer tokens, streamed; the same prompts and arrivals for each; each system is started"
        f" anew in each round and has the machine for itself. {plan.seconds:.0f} s at {plan.per_s} a second; capacity:"
        f" the highest rate of a Poisson process, tried for {plan.probe_s:.0f} s each, with a p95 of {MOST_S:g} s at most: the"
        f" median of the rounds, and between what they lie. {headline.HOW_SURE.format('rounds')} Ratios are of medians."
    )
    rows = [
        headline.row(f"{NAMES[system]} | {kind}", plan.per_s, [getattr(each, name) for each in rounds])
        for system, rounds in found.items()
        for kind, name in (("even", "even"), ("Poisson", "poisson"))
    ]
    capacity, p95_s = capacities(found), poisson_p95_s(found)
    table = [
        f"| {NAMES[system]} | {open_loop.spread([each.capacity_per_s for each in rounds], 1)} |"
        f" {ratio(capacity.get('ours', 0), capacity[system])} | {ratio(p95_s.get('ours', 0), p95_s[system])} |"
        for system, rounds in found.items()
    ]
    missing = [system for system in SYSTEMS if system not in found]
    rows += [
        f"| {NAMES[system]} | not run{' |' * (headline.HEAD.splitlines()[0].count('|') - 1)}" for system in missing
    ]
    table += [f"| {NAMES[system]} | not run | | |" for system in missing]
    given = [
        "| system | capacity, 1/s | ours: so many times it | Poisson, p95: ours is so much of it |",
        "|---" * 4 + "|",
    ]
    return "\n".join(
        ["# Beside vLLM's own server", "", how, "", HEAD, *rows, "", *given, *table, "", *targets(found), ""]
    )


def capacities(found: Found) -> Mapping[System, float]:
    return {system: median(each.capacity_per_s for each in rounds) for system, rounds in found.items()}


def poisson_p95_s(found: Found) -> Mapping[System, float]:
    return {system: median(each.poisson.total_s(0.95) for each in rounds) for system, rounds in found.items()}


def targets(found: Found) -> Iterator[str]:
    """A line for each that can be said."""
    capacity, p95_s = capacities(found), poisson_p95_s(found)
    for system, least in TIMES.items():
        if "ours" in found and capacity.get(system):
            times = capacity["ours"] / capacity[system]
            verdict = "met" if times >= least else "missed"
            yield f"- capacity, {NAMES[system]}: ours is {times:.2f} times it, the target is {least} at least: {verdict}"
    if "ours" in found and "tuned" in found:
        share = p95_s["ours"] / p95_s["tuned"]
        verdict = "met" if share <= POISSON_P95_OF_TUNED else "missed"
        said = f"ours is {share:.2f} of it, the target is {POISSON_P95_OF_TUNED} at most"
        yield f"- Poisson, p95, {NAMES['tuned']}: {said}: {verdict}"


def ratio(ours: float, other: float) -> str:
    return f"{ours / other:.2f}" if ours and other and isfinite(ours) else "-"


def pictures(found: Found) -> list[plot.Panel]:
    by_kind = [
        plot.Distribution(
            f"End of the answer, {kind}",
            {
                NAMES[system]: [each for one in rounds for each in getattr(one, name).totals_s]
                for system, rounds in found.items()
            },
        )
        for kind, name in (("even", "even"), ("Poisson", "poisson"))
    ]
    lines = {NAMES[system]: p95_by_rate(rounds) for system, rounds in found.items()}
    return [*by_kind, plot.Lines(title="p95", x="offered, 1/s", y="s", lines=lines, mark=MOST_S, logarithmic=True)]


def p95_by_rate(rounds: Sequence[Round]) -> list[plot.Point]:
    probes = [probe for each in rounds for probe in each.probes]
    return [
        plot.point(rate, *(p95 for at, p95 in probes if at == rate)) for rate in sorted({rate for rate, _ in probes})
    ]
