"""The mission's figure: 20 requests a second, each answered within a second, with everything switched on.

Chats of about 60 prompt and 32 answer tokens, streamed, each with a key of a tenant whose requests and tokens are counted, and
each stored. Arrivals are even, and then those of a Poisson process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from statistics import mean, median

import msgspec

from perf import machine, open_loop, plot, service

ANSWER_TOKENS = 32
PROMPT_WORDS = 27
"""With the frame of the system's and the user's turn about 60 tokens."""
WARM_S = 10.0
TARGET_PER_S = 20
EVEN_P95_S, EVEN_P99_S, POISSON_P95_S = 1.0, 1.2, 1.5
"""Each shall take less; and of the even arrivals none may fail."""
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    per_s: float
    seconds: float
    """Of each run."""
    runs: int
    """Of each kind of arrivals."""


class Found(msgspec.Struct, frozen=True):
    even: Sequence[open_loop.Run]
    poisson: Sequence[open_loop.Run]
    model: str


def measure(plan: Plan, say: Say, **settings: object) -> Found:
    """`settings`: of the service, as environment variables without their prefix."""
    with service.running(LOG_LEVEL="warning", **settings) as running:
        key = running.new_key("headline")
        return asyncio.run(runs(plan, running.url, key, say))


async def runs(plan: Plan, url: str, key: str, say: Say) -> Found:
    more = {"model": "hermes-2", "store": True}
    await series(url, key, open_loop.even(plan.per_s / 2, WARM_S), 0, more)
    found: dict[str, list[open_loop.Run]] = {"even": [], "poisson": []}
    for number in range(1, plan.runs + 1):
        arrivals = {
            "even": open_loop.even(plan.per_s, plan.seconds),
            "poisson": open_loop.poisson(plan.per_s, plan.seconds, number),
        }
        for kind, times in arrivals.items():
            run = await series(url, key, times, number, more)
            found[kind].append(run)
            say(f"{kind} {number}: {line(run)}")
    return Found(found["even"], found["poisson"], "smollm2-135m")


async def series(url: str, key: str, arrivals: Sequence[float], seed: int, more: dict[str, object]) -> open_loop.Run:
    bodies = list(open_loop.chats(len(arrivals), words=PROMPT_WORDS, answer_tokens=ANSWER_TOKENS, seed=seed, more=more))
    return await open_loop.drive(url, key, arrivals, bodies)


def line(run: open_loop.Run) -> str:
    at = ", ".join(f"p{100 * share:.0f} {run.total_s(share):.3f} s" for share in (0.5, 0.95, 0.99))
    return (
        f"{at}; first token p50 {run.ttft_s(0.5):.3f} s, p95 {run.ttft_s(0.95):.3f} s;"
        f" {run.served_per_s:.1f} served a second, {len(run.errors)} errors {sorted(set(run.errors))[:3]}"
    )


HEAD = (
    "| arrivals | offered, 1/s | served, 1/s | errors | p50, ms | p95, ms | p99, ms | TTFT p50, ms | TTFT p95, ms |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, per_s: float, some: Sequence[open_loop.Run]) -> str:
    totals, ttfts = [run.totals_s for run in some], [run.ttfts_s for run in some]
    cells = [
        name,
        f"{per_s:g}",
        f"{median(run.served_per_s for run in some):.1f}",
        str(sum(len(run.errors) for run in some)),
        f"{1e3 * median(run.total_s(0.5) for run in some):,.0f}",
        *(open_loop.with_interval(totals, share) for share in (0.95, 0.99)),
        f"{1e3 * median(run.ttft_s(0.5) for run in some):,.0f}",
        open_loop.with_interval(ttfts, 0.95),
    ]
    return "| " + " | ".join(cells) + " |"


HOW_SURE = (
    "Medians of the {0}; in brackets the 95 % interval of that median, by bootstrap of {0} and of blocks of"
    f" {open_loop.BLOCK} requests in them. A request that failed took for ever: inf."
)


def targets(found: Found) -> Iterator[str]:
    """A line for each."""
    even, poisson = found.even, found.poisson
    yield target("even, p95", median(run.total_s(0.95) for run in even), EVEN_P95_S)
    yield target("even, p99", median(run.total_s(0.99) for run in even), EVEN_P99_S)
    errors = sum(len(run.errors) for run in even)
    yield f"- even, errors: {errors}, the target is 0: {'missed' if errors else 'met'}"
    yield target("Poisson, p95", median(run.total_s(0.95) for run in poisson), POISSON_P95_S)


def target(name: str, found_s: float, limit_s: float) -> str:
    verdict = "met" if found_s < limit_s else "missed"
    return f"- {name}: {1e3 * found_s:,.0f} ms, the target is less than {1e3 * limit_s:,.0f} ms: {verdict}"


def pictures(found: Found) -> list[plot.Panel]:
    kinds = {"even": found.even, "Poisson": found.poisson}
    totals = {kind: [each for run in some for each in run.totals_s] for kind, some in kinds.items()}
    ttfts = {kind: [each for run in some for each in run.ttfts_s] for kind, some in kinds.items()}
    return [
        plot.Distribution("End of the answer", totals, (EVEN_P95_S, EVEN_P99_S)),
        plot.Distribution("First token", ttfts),
    ]


def report(found: Found, plan: Plan) -> str:
    """As Markdown."""
    answered = [each for run in (*found.even, *found.poisson) for each in run.outcomes if each.error is None]
    prompt, answer = (
        mean(tokens) if tokens else 0.0
        for tokens in ([each.prompt_tokens for each in answered], [each.answer_tokens for each in answered])
    )
    how = (
        f"`python -m perf headline` on {machine.describe()}: {found.model}; chats of {prompt:.0f} prompt and {answer:.0f}"
        f" answer tokens on average, streamed, each with a key, counted and stored. {plan.runs} runs of {plan.seconds:.0f} s"
        " of each kind, the two in turn. Times are from when a request was due to the end of its answer; clients run on the"
        f" same machine. {HOW_SURE.format('runs')}"
    )
    rows = [row("even", plan.per_s, found.even), row("Poisson", plan.per_s, found.poisson)]
    judged = [*targets(found), ""] if plan.per_s >= TARGET_PER_S else []
    return "\n".join(["# 20 requests a second", "", how, "", HEAD, *rows, "", *judged])
