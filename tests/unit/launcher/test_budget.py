"""deploy/launcher/budget: the arithmetic of memory_limit."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from deploy.launcher import budget
from deploy.launcher.problem import Problem
from frontend import settings
from frontend.domain.model_card import ChatFormat, ModelCard

HERMES_8B = ModelCard(
    id="NousResearch/Hermes-2-Pro-Llama-3-8B",
    path=".",
    chat=ChatFormat(),
    raw_bos=None,
    context_tokens=8192,
    weights_bytes=16_060_000_000,
    weights_dtype="bfloat16",
    kv_elements_per_token=2 * 32 * 8 * 128,
    created=0,
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how much memory the machine has."""
    return lambda size: monkeypatch.setattr(budget, "machine_memory_bytes", lambda: size)


def test_the_production_model_fits_into_the_missions_30_gb(machine: Callable[[int], None]) -> None:
    """16 GB of weights, and a KV cache of what its 64 sequences want, cut to what is left."""
    machine(64 * 10**9)
    plan = budget.plan(settings.load({}), HERMES_8B)
    assert plan.limit_bytes == 30 * 10**9
    assert plan.total_bytes <= plan.limit_bytes
    assert plan.kv_cache_tokens >= 8192 * 7
    assert dict(plan.parts)["weights"] == 16_060_000_000
    assert plan.table()[-1].endswith("of 30.00 GB (memory_limit)")


def test_a_smaller_machine_is_the_limit(machine: Callable[[int], None]) -> None:
    """memory_limit is a wish; the machine, or its control group, has the last word."""
    machine(24 * 10**9)
    plan = budget.plan(settings.load({}), HERMES_8B)
    assert plan.limit_bytes == 24 * 10**9
    assert "all this machine has" in plan.table()[-1]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"HERMES2_MEMORY_LIMIT": "20GB"}, "memory_limit"),
        ({"HERMES2_ENGINE_KV_CACHE": "20GB"}, "memory_limit"),
        ({"HERMES2_ENGINE_DTYPE": "float32"}, "memory_limit"),
        ({"HERMES2_MEMORY_INDEXES": "10GB"}, "memory_limit"),
        ({"HERMES2_ENGINE_KV_CACHE": "100MB"}, "engine.kv_cache"),
    ],
)
def test_overcommit_is_refused(machine: Callable[[int], None], environment: dict[str, str], says: str) -> None:
    """Parts that are more than the whole, and a KV cache that holds not even one context."""
    machine(64 * 10**9)
    with pytest.raises(Problem, match=says):
        budget.plan(settings.load(environment), HERMES_8B)


def test_a_shorter_model_keeps_its_own_window(machine: Callable[[int], None]) -> None:
    """engine.max_model_len is an upper bound."""
    machine(64 * 10**9)
    short = msgspec.structs.replace(HERMES_8B, context_tokens=4096)
    assert budget.plan(settings.load({}), short).max_model_len == 4096
    assert budget.plan(settings.load({"HERMES2_ENGINE_MAX_MODEL_LEN": "1024"}), short).max_model_len == 1024


def test_every_share_of_the_settings_is_in_the_sum(machine: Callable[[int], None]) -> None:
    """A share that is raised raises the sum by as much."""
    machine(10**12)
    base = budget.plan(settings.load({"HERMES2_ENGINE_KV_CACHE": "8GB"}), HERMES_8B).total_bytes
    for leaf in settings.leaves():
        if leaf.path.startswith("memory."):
            environment = {leaf.variable: str(int(leaf.default) + 10**8), "HERMES2_ENGINE_KV_CACHE": "8GB"}  # type: ignore[call-overload]  # a ByteSize
            assert budget.plan(settings.load(environment), HERMES_8B).total_bytes == base + 10**8


def test_without_an_embedding_model_it_has_no_share(machine: Callable[[int], None]) -> None:
    """embedder.enabled=false leaves its memory to the others."""
    machine(10**12)
    shares = [
        dict(budget.plan(settings.load({"HERMES2_EMBEDDER_ENABLED": enabled}), HERMES_8B).parts)
        for enabled in ("true", "false")
    ]
    name = "embedding model (memory.embedder)"
    assert (shares[0][name], shares[1][name]) == (settings.load({}).memory.embedder, 0)
