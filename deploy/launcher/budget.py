"""The memory and CPU budget: what each part may take, summed before anything starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.launcher.problem import Problem
from frontend.domain.model_card import ModelCard
from frontend.settings import Settings

BYTES_PER_ELEMENT = {"bfloat16": 2, "float16": 2, "float32": 4}
KV_TOKENS_PER_SEQUENCE = 1024
"""The KV cache that is taken unless set: so many tokens for each of max_num_seqs."""
MIN_KV_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Budget:
    limit_bytes: int
    """memory_limit, or what this machine has if that is less."""
    limit_source: str
    cpus: int
    parts: Sequence[tuple[str, int]]
    """Name and bytes of every share, in the order of the settings."""
    kv_cache_bytes: int
    kv_cache_tokens: int
    max_model_len: int

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.parts)

    def table(self) -> list[str]:
        """The arithmetic, a line each."""
        rows = [f"{name:<42}{size / 1e9:8.2f} GB" for name, size in self.parts]
        total = f"{'sum':<42}{self.total_bytes / 1e9:8.2f} GB of {self.limit_bytes / 1e9:.2f} GB ({self.limit_source})"
        return [*rows, total]


def plan(settings: Settings, card: ModelCard) -> Budget:
    """Splits memory_limit and cpus. Raises Problem, with the arithmetic, if the parts are more than the whole."""
    dtype = card.weights_dtype if settings.engine.dtype in (None, "auto") else settings.engine.dtype
    element = BYTES_PER_ELEMENT.get(dtype, 2)
    limit, source = memory_limit(settings)
    memory = settings.memory
    weights = card.weights_bytes * element // BYTES_PER_ELEMENT.get(card.weights_dtype, 2)
    others = [
        ("weights", weights),
        ("engine processes (memory.engine_runtime)", memory.engine_runtime),
        ("Triton (memory.triton)", memory.triton),
        ("embedding model (memory.embedder)", memory.embedder if settings.embedder.enabled else 0),
        (f"frontend, {settings.workers} worker(s)", memory.frontend_worker * settings.workers),
        ("Valkey (memory.valkey)", memory.valkey),
        ("SQL caches (memory.sql)", memory.sql),
        ("indexes (memory.indexes)", memory.indexes),
    ]
    token_bytes = card.kv_elements_per_token * element
    max_model_len = min(settings.engine.max_model_len, card.context_tokens)
    if settings.engine.kv_cache is not None:
        kv_cache = int(settings.engine.kv_cache)
    else:
        wished = KV_TOKENS_PER_SEQUENCE * settings.engine.max_num_seqs * token_bytes
        rest = limit - sum(size for _, size in others)
        kv_cache = max(min(wished, rest), max_model_len * token_bytes, MIN_KV_BYTES)
    parts = [others[0], ("KV cache (engine.kv_cache)", kv_cache), *others[1:]]
    cpus = min(settings.cpus, len(os.sched_getaffinity(0)))
    budget = Budget(limit, source, cpus, parts, kv_cache, kv_cache // token_bytes, max_model_len)
    if budget.total_bytes > limit:
        raise Problem(
            "\n  ".join(["memory_limit (HERMES2_MEMORY_LIMIT) is too small for this model:", *budget.table()])
        )
    if budget.kv_cache_tokens < max_model_len:
        raise Problem(
            f"engine.kv_cache (HERMES2_ENGINE_KV_CACHE): {kv_cache / 1e9:.2f} GB hold {budget.kv_cache_tokens} tokens,"
            f" fewer than one context of engine.max_model_len = {max_model_len}"
        )
    return budget


def memory_limit(settings: Settings) -> tuple[int, str]:
    machine = machine_memory_bytes()
    if machine < settings.memory_limit:
        return machine, f"all this machine has; memory_limit is {settings.memory_limit}"
    return settings.memory_limit, "memory_limit"


def machine_memory_bytes() -> int:
    """Memory of the machine, or of the control group that this process lives in, if that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (text := path.read_text().strip()).isdigit():
            memory = min(memory, int(text))
    return memory
