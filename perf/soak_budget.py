"""The memory budget's arithmetic: beside what was measured, and for the production model on the mission's machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from unittest import mock

import msgspec

from deploy.launcher import budget
from deploy.launcher.budget import Budget
from deploy.launcher.quantize import KEPT_DOWNS
from frontend import settings
from frontend.domain.model_card import ChatFormat, ModelCard

SHARES: Mapping[str, tuple[str, ...]] = {
    "engine": ("weights", "KV cache", "engine processes"),
    "Triton": ("Triton",),
    "embedding model": ("embedding model",),
    "frontend": ("frontend", "SQL caches", "indexes"),
    "Valkey": ("Valkey",),
}
"""Of the budget, as its rows begin; and which of them lie in the same processes."""
PROCESSES: Mapping[str, Sequence[str]] = {
    "engine": ("stub", "EngineCore", "vLLM's worker"),
    "Triton": ("Triton",),
    "embedding model": ("embedder's stub",),
    "frontend": ("frontend",),
    "Valkey": ("Valkey",),
}
NO_SHARE = ("launcher",)
GB = 1e9
LIMIT_BYTES, CPUS = 30 * 10**9, 4
"""The mission's."""
MEMORY_BYTES_PER_S = 100e9
"""For an example: what four or eight channels of DDR4 or DDR5 give."""


def compared(plan: Budget, peaks: Mapping[str, float], rises: Mapping[str, float]) -> list[str]:
    """As Markdown. `peaks`: bytes by part, each at its own time. `rises`: bytes an hour, of those that rise at all."""
    rows = [
        "| share | processes | budget, GB | peak PSS, GB | of the budget | full after |",
        "|---|---|---|---|---|---|",
    ]
    for name, beginnings in SHARES.items():
        sizes = [size for row, size in plan.parts if row.startswith(beginnings)]
        peak, rise = (sum(of_part.get(part, 0) for part in PROCESSES[name]) for of_part in (peaks, rises))
        given = " + ".join(f"{size / GB:.2f}" for size in sizes) + (f" = {sum(sizes) / GB:.2f}" if sizes[1:] else "")
        share = f"{peak / sum(sizes):.0%}" if sum(sizes) else "-"
        full = f"{max(0, sum(sizes) - peak) / rise / 24:,.1f} days" if rise else "-"
        rows.append(f"| {name} | {', '.join(PROCESSES[name])} | {given} | {peak / GB:.2f} | {share} | {full} |")
    rows += [f"| none | {part} | 0 | {peaks.get(part, 0) / GB:.2f} | - | - |" for part in NO_SHARE]
    return [*rows, "", "```", *plan.table(), "```"]


class Llama(msgspec.Struct, frozen=True):
    """What the size of a Llama model follows from."""

    layers: int = 32
    hidden: int = 4096
    inner: int = 14_336
    kv_heads: int = 8
    head_size: int = 128
    vocabulary: int = 128_288
    context_tokens: int = 8192

    @property
    def down(self) -> int:
        """Parameters of one layer's down projection; up and gate have as many."""
        return self.hidden * self.inner

    @property
    def linears(self) -> int:
        """Of all layers; q and o, k and v, and the three of the MLP."""
        return self.layers * (2 * self.hidden**2 + 2 * self.hidden * self.kv_heads * self.head_size + 3 * self.down)

    @property
    def others(self) -> int:
        """Embeddings and LM head, which are not tied, and norms."""
        return 2 * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def bf16_bytes(self) -> int:
        return 2 * (self.linears + self.others)

    @property
    def int8_bytes(self) -> int:
        """As deploy/launcher/quantize.py writes it, without scales: some downs stay in bf16, and embeddings and norms."""
        kept = round(self.layers * KEPT_DOWNS) * self.down
        return self.linears + kept + 2 * self.others - self.vocabulary * self.hidden


HERMES = Llama()


def card(weights_bytes: int) -> ModelCard:
    return ModelCard(
        id="NousResearch/Hermes-2-Pro-Llama-3-8B",
        path=".",
        chat=ChatFormat(),
        raw_bos=None,
        context_tokens=HERMES.context_tokens,
        weights_bytes=weights_bytes,
        weights_dtype="bfloat16",
        kv_elements_per_token=2 * HERMES.layers * HERMES.kv_heads * HERMES.head_size,
        created=0,
    )


def planned(weights_bytes: int, **variables: object) -> Budget:
    """By the launcher's own arithmetic, with default settings but for `variables`. Raises Problem if it does not fit."""
    environment = {"MEMORY_LIMIT": LIMIT_BYTES, "CPUS": CPUS, **variables}
    chosen = settings.load({f"HERMES2_{name}": str(value) for name, value in environment.items()})
    # It asks the machine as well, and this one is not the mission's.
    with (
        mock.patch.object(budget, "machine_memory_bytes", return_value=LIMIT_BYTES),
        mock.patch("os.sched_getaffinity", return_value=range(CPUS)),
    ):
        return budget.plan(chosen, card(weights_bytes))


def production() -> list[str]:
    """As Markdown: what fits."""
    plans = {"bf16": planned(HERMES.bf16_bytes), "int8": planned(HERMES.int8_bytes)}
    rest = LIMIT_BYTES - plans["int8"].total_bytes + plans["int8"].kv_cache_bytes
    plans["int8, all that is left to the KV cache"] = planned(HERMES.int8_bytes, ENGINE_KV_CACHE=rest)
    parameters = (HERMES.linears + HERMES.others) / 1e9
    how = (
        f"Hermes-2-Pro-Llama-3-8B, {parameters:.2f} billion parameters, by the launcher's own arithmetic with"
        f" {LIMIT_BYTES / GB:.0f} GB, {CPUS} cores and default settings; none of it was run. int8 is what"
        f" `engine.weights=int8` makes: {round(HERMES.layers * KEPT_DOWNS)} of {HERMES.layers} down projections and the"
        " embeddings stay in bf16. A token has"
        f" {2 * card(0).kv_elements_per_token / 2**10:.0f} KiB in the KV cache. The model and everything else in main"
        " memory, as on a machine without a GPU; with one, weights and KV cache are in the GPU's."
    )
    columns = (
        "weights",
        "GB",
        "KV cache, GB",
        "tokens in it",
        f"contexts of {HERMES.context_tokens:,}",
        "all else, GB",
        "sum, GB",
        "left, GB",
        "a decode step, ms",
    )
    step = (
        f"A decode step reads all weights but the embeddings, for one sequence as for {settings.load({}).engine.max_num_seqs}:"
        f" the last column is what that alone takes with {MEMORY_BYTES_PER_S / GB:.0f} GB/s of memory bandwidth."
    )
    return [
        *(how, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"),
        *(row(name, plan) for name, plan in plans.items()),
        *("", step, "", "bf16:", "", "```", *plans["bf16"].table(), "```"),
        *("", "int8:", "", "```", *plans["int8"].table(), "```"),
    ]


def row(name: str, plan: Budget) -> str:
    weights = dict(plan.parts)["weights"]
    read_bytes = weights - 2 * HERMES.vocabulary * HERMES.hidden
    cells = [
        name,
        f"{weights / GB:.2f}",
        f"{plan.kv_cache_bytes / GB:.2f}",
        f"{plan.kv_cache_tokens:,}",
        f"{plan.kv_cache_tokens / plan.max_model_len:.1f}",
        f"{(plan.total_bytes - weights - plan.kv_cache_bytes) / GB:.2f}",
        f"{plan.total_bytes / GB:.2f}",
        f"{(plan.limit_bytes - plan.total_bytes) / GB:.2f}",
        f"{1e3 * read_bytes / MEMORY_BYTES_PER_S:.0f}",
    ]
    return f"| {' | '.join(cells)} |"
