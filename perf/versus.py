"""Ours beside vLLM's own server: the same machine, prompts and arrivals, each alone on it, one after the other, several rounds.

ours                the whole service: keys, limits, storage, Triton
vllm serve, stock   as it comes, bfloat16
vllm serve, tuned   with the weights, arguments, threads and libraries that our launcher gives to the engine
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, Literal, get_args

import msgspec

from perf import headline, machine, open_loop, service, vllm_server

System = Literal["ours", "vllm serve, stock", "vllm serve, tuned"]
MOST_S = 2.0
"""The p95 up to which a rate counts as served."""
LEAST_PER_S, MOST_PER_S = 2, 60
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    per_s: float
    seconds: float
    """Of each run at that rate."""
    probe_s: float
    """Of each run of the search for the capacity."""
    rounds: int


class Round(msgspec.Struct, frozen=True):
    even: open_loop.Run
    poisson: open_loop.Run
    capacity_per_s: int
    """The highest rate of a Poisson process with a p95 of two seconds at most; 0: none."""


@contextmanager
def started(system: System) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Its URL, a key, and what its bodies have beside the chat."""
    if system == "ours":
        with service.running(LOG_LEVEL="warning") as running:
            yield running.url, running.new_key("versus"), {"model": "hermes-2", "store": True}
    else:
        with vllm_server.running("stock" if system == "vllm serve, stock" else "ours") as server:
            yield server.url, "none", {"model": server.model}


def measure(plan: Plan, systems: Sequence[System], say: Say) -> dict[System, list[Round]]:
    found: dict[System, list[Round]] = {system: [] for system in systems}
    for number in range(1, plan.rounds + 1):
        for system in systems:
            with started(system) as (url, key, more):
                one = asyncio.run(round_of(plan, url, key, more, number))
            found[system].append(one)
            say(f"{number}, {system}: {one.capacity_per_s}/s; even: {headline.line(one.even)}")
            say(f"{number}, {system}: Poisson: {headline.line(one.poisson)}")
    return found


async def round_of(plan: Plan, url: str, key: str, more: dict[str, Any], number: int) -> Round:
    await headline.series(url, key, open_loop.even(plan.per_s / 2, headline.WARM_S), 0, more)
    even = await headline.series(url, key, open_loop.even(plan.per_s, plan.seconds), number, more)
    poisson = await headline.series(url, key, open_loop.poisson(plan.per_s, plan.seconds, number), number, more)
    low, high = LEAST_PER_S - 1, MOST_PER_S + 1
    rate = int(plan.per_s)
    while high - low > 1:
        probe = open_loop.poisson(rate, plan.probe_s, 1000 * number + rate)
        run = await headline.series(url, key, probe, rate, more)
        low, high = (rate, high) if run.total_s(0.95) <= MOST_S else (low, rate)
        rate = min((low + high) // 2, 2 * low if high > MOST_PER_S else high)
    return Round(even, poisson, low if low >= LEAST_PER_S else 0)


HEAD = headline.HEAD.replace("| arrivals |", "| system | arrivals |").replace("|---|", "|---|---|", 1)


def report(found: dict[System, list[Round]], plan: Plan) -> str:
    """As Markdown."""
    how = (
        f"`python -m perf versus --rounds {plan.rounds}` on {machine.describe()}: chats of about 60 prompt and"
        f" {headline.ANSWER_TOKENS} answer tokens, streamed; the same prompts and arrivals for each; each system is started"
        f" anew in each round and has the machine for itself. {plan.seconds:.0f} s at {plan.per_s:g} a second; capacity:"
        f" the highest rate of a Poisson process, tried for {plan.probe_s:.0f} s each, with a p95 of {MOST_S:g} s at most."
        " The median of the rounds, and between what they lie; ratios are of medians."
    )
    rows = [
        headline.row(f"{system} | {kind}", plan.per_s, [getattr(each, name) for each in rounds])
        for system, rounds in found.items()
        for kind, name in (("even", "even"), ("Poisson", "poisson"))
    ]
    capacity = {system: median(each.capacity_per_s for each in rounds) for system, rounds in found.items()}
    table = [
        f"| {system} | {open_loop.spread([each.capacity_per_s for each in rounds], 1)} |"
        f" {ratio(capacity.get('ours', 0), capacity[system])} |"
        for system, rounds in found.items()
    ]
    given = "\n".join(["| system | capacity, 1/s | ours is so many times |", "|---|---|---|", *table])
    missing = [f"{system}: not run" for system in get_args(System) if system not in found]
    return "\n".join(["# Beside vLLM's own server", "", how, "", HEAD, *rows, "", given, "", *missing])


def ratio(ours: float, other: float) -> str:
    return f"{ours / other:.2f}" if other else "-"
