"""Open-loop arrivals: what is sent when, and how sure the figures are."""

import asyncio
import random
import time
from statistics import mean

from perf import open_loop
from perf.open_loop import Outcome, Run

ONE = Outcome(0.1, 0.2, 60, 32)


async def test_requests_are_sent_when_they_are_due_whatever_becomes_of_others() -> None:
    """The second does not wait for the first, and the time of each counts from when it was due."""
    second_sent = asyncio.Event()
    dues: list[float] = []

    async def ask(number: int, due: float) -> Outcome:
        dues.append(due)
        if number == 0:
            await second_sent.wait()
        second_sent.set()
        return Outcome(0.0, time.perf_counter() - due, 60, 32)

    run = await open_loop.send(ask, [0.0, 0.02], [0, 1])
    assert abs(dues[1] - dues[0] - 0.02) < 1e-6
    assert run.totals_s[0] >= 0.02
    assert not run.errors


def test_who_has_failed_took_for_ever() -> None:
    """Errors cannot make a percentile better."""
    run = Run([ONE] * 9 + [Outcome(0.0, 0.0, 0, 0, "status 500")], 1.0)
    assert run.total_s(0.5) == 0.2
    assert run.total_s(0.95) == run.ttft_s(0.95) == float("inf")


def test_the_same_prompts_for_chats_and_for_text() -> None:
    """Systems that know no chats are asked the same."""
    (prompt,) = open_loop.prompts(1, words=27, seed=3)
    (body,) = open_loop.chats(1, words=27, answer_tokens=32, seed=3, more={})
    assert prompt.encode() in body
    assert open_loop.as_text("Hello", "Be brief.") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


class TestInterval:
    def test_it_is_the_same_for_the_same_seed(self) -> None:
        """A report that is written again says the same."""
        runs = [runs_of(1.0, seed) for seed in range(3)]
        assert open_loop.interval(runs, 0.95) == open_loop.interval(runs, 0.95)
        assert open_loop.interval(runs, 0.95) != open_loop.interval(runs, 0.95, seed=1)

    def test_it_has_the_true_figure_in_it_most_of_the_time(self) -> None:
        """Of 20 measurements of three runs in 17 at least (95 % less what chance takes); ln 20 of the exponential."""
        truth = 2.9957
        found = [open_loop.interval([runs_of(1.0, 3 * number + run) for run in range(3)], 0.95) for number in range(20)]
        assert sum(low <= truth <= high for low, high in found) >= 17

    def test_runs_that_differ_make_it_wide(self) -> None:
        """Three runs are three machines' moods: many requests do not make up for that."""
        alike = open_loop.interval([runs_of(1.0, seed) for seed in range(3)], 0.95)
        differing = open_loop.interval([runs_of(scale, seed) for seed, scale in enumerate((0.5, 1.0, 2.0))], 0.95)
        assert differing[1] - differing[0] > 3 * (alike[1] - alike[0])

    def test_requests_that_wait_together_make_it_wider(self) -> None:
        """A minute with one jam in it is not a thousand independent observations."""
        chance = random.Random(1)  # noqa: S311
        jams = [[3.0 if number // 100 == jam else 0.5 + chance.random() for number in range(1000)] for jam in range(3)]
        scattered = [chance.sample(run, len(run)) for run in jams]
        assert width(jams) > width(scattered)

    def test_failures_are_part_of_it(self) -> None:
        """Where one in ten has failed, p95 has no upper end."""
        runs = [[0.5] * 90 + [float("inf")] * 10 for _ in range(3)]
        assert open_loop.interval(runs, 0.95)[1] == float("inf")
        assert open_loop.with_interval(runs, 0.5) == "500 (500 to 500)"


def runs_of(scale: float, seed: int) -> list[float]:
    chance = random.Random(seed)  # noqa: S311
    return [chance.expovariate(1 / scale) for _ in range(600)]


def width(runs: list[list[float]]) -> float:
    """Mean over a few seeds of the interval of p90."""
    return mean(high - low for low, high in (open_loop.interval(runs, 0.9, seed) for seed in range(3)))
