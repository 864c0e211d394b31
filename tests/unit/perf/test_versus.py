"""Ours beside others: the search for the capacity, and what the report says of whom."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from perf import headline, nvidia, plot, versus
from perf.capacity import MOST_PROBES, Search
from perf.open_loop import Outcome, Run


def served(rate: float, capacity: float) -> Run:
    """A system that answers within a second up to its capacity, and is saturated a little above it."""
    total_s = 0.9 if rate <= capacity else 5.0
    return Run([Outcome(0.1, total_s, 60, 32)] * 100, 100 / min(rate, 1.06 * capacity))


def search(capacity: float, before: int | None = None) -> Search:
    found = Search(before)
    found.learn(20, served(20, capacity))
    while (rate := found.next()) is not None:
        found.learn(rate, served(rate, capacity))
    return found


class TestCapacity:
    @pytest.mark.parametrize("capacity", [3, 9, 14, 17, 19, 20, 23, 25, 30])
    def test_six_probes_find_it(self, capacity: int) -> None:
        """The run at the headline's rate is the first of them."""
        found = search(capacity)
        assert found.capacity_per_s == capacity
        assert len(found.probes) <= MOST_PROBES

    @pytest.mark.parametrize("capacity", [3, 14, 20, 25, 37, 80])
    def test_a_later_round_begins_at_what_is_known(self, capacity: int) -> None:
        """Two more probes say that nothing has changed."""
        found = search(capacity, before=capacity)
        assert found.capacity_per_s == capacity
        assert len(found.probes) <= 3

    @pytest.mark.parametrize("before", [21, 22, 24, 25])
    def test_a_later_round_finds_what_has_changed(self, before: int) -> None:
        """The machine was in another mood."""
        assert search(23, before).capacity_per_s == 23

    def test_a_system_that_serves_nothing_has_none(self) -> None:
        """And the search ends."""
        found = search(0.4)
        assert found.capacity_per_s == 0
        assert len(found.probes) <= MOST_PROBES

    def test_what_has_failed_is_not_served(self) -> None:
        """However soon the errors came."""
        found = Search()
        found.learn(20, Run([Outcome(0.1, 0.1, 0, 0, "status 503")] * 100, 5.0))
        assert found.capacity_per_s == 0


def round_of(total_s: float, capacity: int) -> versus.Round:
    run = Run([Outcome(total_s / 4, total_s, 60, 32)] * 100, 5.0)
    return versus.Round(run, run, [(20, total_s), (capacity, 1.9)], capacity)


FOUND: versus.Found = {"ours": [round_of(0.5, 30), round_of(0.6, 31)], "stock": [round_of(1.0, 15), round_of(1.2, 14)]}
PLAN = versus.Plan(per_s=20, seconds=60, probe_s=30, rounds=2)


def test_ratios_are_of_medians_and_what_was_not_run_is_said() -> None:
    """Ours is twice as much, and takes half of the time; of the others nothing is known."""
    text = versus.report(FOUND, PLAN)
    assert "| vllm serve, stock | 14 (14 to 15) | 2.10 | 0.50 |" in text
    assert "| NVIDIA's backend | not run | | |" in text
    assert "| vllm serve, tuned | not run |" in text
    assert "- capacity, vllm serve, stock: ours is 2.10 times it, the target is 2.2 at least: missed" in text
    assert "- Poisson" not in text


def test_every_row_has_as_many_cells_as_its_head() -> None:
    """Markdown shows a table only then."""
    for table in versus.report(FOUND, PLAN).split("\n\n"):
        if table.startswith("|"):
            assert len({row.count("|") for row in table.strip().splitlines()}) == 1, table


def test_what_was_measured_can_be_drawn(tmp_path: Path) -> None:
    """Distributions of every system, and the p95 of all probes of one rate."""
    panels = versus.pictures(FOUND)
    plot.write(tmp_path / "versus.svg", panels)
    assert versus.p95_by_rate(FOUND["ours"])[0] == pytest.approx((20, 0.5, 0.55, 0.6))


async def test_a_round_is_two_runs_and_the_search() -> None:
    """Everybody is asked the same: even arrivals, those of a Poisson process, and probes with a seed of their rate."""
    asked: list[tuple[float, int]] = []

    async def series(arrivals: Sequence[float], seed: int) -> Run:
        per_s = len(arrivals) / (30 if len(asked) > 2 else 60)
        asked.append((round(per_s), seed))
        return served(per_s, 22.9)

    one = await versus.round_of(versus.Plan(per_s=20, seconds=60, probe_s=30, rounds=1), series, 2, None)
    assert [seed for _, seed in asked][:3] == [0, 2, 2]
    assert [seed for _, seed in asked][3:] == [rate for rate, _ in one.probes[1:]]
    assert one.probes[0] == (20, 0.9)
    assert 21 <= one.capacity_per_s <= 24


def test_nvidia_without_a_checkout_is_not_run() -> None:
    """Nor is anything else that was not asked for."""
    plan = versus.Plan(per_s=20, seconds=60, probe_s=30, rounds=1, systems=["nvidia"])
    assert not versus.measure(plan, print)


def test_nvidias_model_gets_our_engines_arguments(tmp_path: Path) -> None:
    """With their types; what our own backend alone knows is left out."""
    (tmp_path / "checkout/src").mkdir(parents=True)
    (tmp_path / "checkout/src/model.py").write_text("class TritonPythonModel: ...\n")
    given = {"vllm.dtype": "bfloat16", "vllm.max_num_seqs": "64", "vllm.enforce_eager": "true", "drain_timeout_s": "30"}
    nvidia.write_repository(tmp_path / "models", tmp_path / "checkout", given)
    version = tmp_path / "models/vllm_model/1"
    assert json.loads((version / "model.json").read_text()) == {
        "dtype": "bfloat16",
        "max_num_seqs": 64,
        "enforce_eager": True,
    }
    assert {path.name for path in version.iterdir()} == {"model.json", "nvidia_backend.py", "nvidia_model.py"}


class TestHeadline:
    def test_each_target_has_a_verdict(self) -> None:
        """Of the medians of the runs."""
        fast = [Run([Outcome(0.1, 0.9, 60, 32)] * 100, 5.0)] * 3
        slow = [Run([Outcome(0.1, 1.6, 60, 32)] * 100, 5.0)] * 3
        assert [line.rsplit(": ", 1)[1] for line in headline.targets(headline.Found(fast, slow, "model"))] == [
            "met",
            "met",
            "met",
            "missed",
        ]

    def test_one_error_misses_the_target(self) -> None:
        """Even where percentiles do not see it."""
        run = Run([Outcome(0.1, 0.5, 60, 32)] * 999 + [Outcome(0.1, 0.1, 0, 0, "status 503")], 50.0)
        assert "- even, errors: 1, the target is 0: missed" in headline.targets(headline.Found([run], [run], "model"))
