"""What the CPU's sampler draws, as JSON. Run by the engine's Python: torch and vLLM are nowhere else."""

from __future__ import annotations

import json
from typing import Any

import torch
import vllm._custom_ops  # noqa: F401  # before the next line, which needs its kernels
from hermes2_backend.cpu_sampler import sample
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

VOCABULARY = 5000
"""No multiple of the sampler's pieces, and more than its first width."""
DRAWS = 50_000


def main() -> None:
    torch.manual_seed(7)
    flat, steep = torch.randn(VOCABULARY), 4 * torch.randn(VOCABULARY)
    found: dict[str, Any] = {}
    for name, logits, k, p in (
        ("free", flat, None, None),
        ("free, steep", steep, None, None),
        ("top_p of many", flat, None, 0.9),  # more than the likeliest 256, and than 4096
        ("top_p of some", 2 * flat, None, 0.9),
        ("top_p of few", steep, None, 0.5),
        ("top_k", steep, 40, None),
        ("both", steep, 40, 0.7),
    ):
        found[name] = distance(logits, k, p)
    found["rows apart"] = rows_apart(steep)
    found["seeds"] = seeded(steep)
    found["nothing of probability 0"] = never_zero()
    print(json.dumps(found))


def limits(rows: int, k: int | None, p: float | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    return (None if k is None else torch.full((rows,), k)), (None if p is None else torch.full((rows,), p))


def distance(logits: torch.Tensor, k: int | None, p: float | None) -> dict[str, float]:
    """Of what was drawn from what vLLM's own limits leave: half the sum of differences, and what chance alone makes of it."""
    exact = apply_top_k_top_p(logits[None].clone(), *limits(1, k, p)).softmax(dim=-1)[0].double()
    counts = torch.zeros(VOCABULARY, dtype=torch.float64)
    for _ in range(DRAWS // 1000):
        ids = sample(logits.expand(1000, -1).contiguous(), {}, *limits(1000, k, p))
        counts += torch.bincount(ids, minlength=VOCABULARY)
    by_chance = torch.multinomial(exact, DRAWS, replacement=True)
    chance = torch.bincount(by_chance, minlength=VOCABULARY) / DRAWS
    return {
        "found": float((counts / DRAWS - exact).abs().sum() / 2),
        "chance": float((chance - exact).abs().sum() / 2),
        "outside": float(counts[exact == 0].sum()),
    }


def rows_apart(logits: torch.Tensor) -> list[int]:
    """Rows with limits, without, and with the smallest, in one batch: each is as if it were alone."""
    k, p = torch.tensor([VOCABULARY, 1, VOCABULARY, 3]), torch.tensor([1.0, 1.0, 1e-6, 1.0])
    drawn = torch.stack([sample(logits.expand(4, -1).contiguous(), {}, k, p) for _ in range(2000)])
    likeliest = logits.topk(3).indices
    return [
        len(drawn[:, 0].unique()),
        int((drawn[:, 1] != likeliest[0]).sum()),
        int((drawn[:, 2] != likeliest[0]).sum()),
        int((~torch.isin(drawn[:, 3], likeliest)).sum()),
    ]


def seeded(logits: torch.Tensor) -> bool:
    """The same seed gives the same tokens, whoever is beside it."""

    def tokens(rows: int, at: int) -> list[int]:
        generator = torch.Generator().manual_seed(11)
        many = logits.expand(rows, -1).contiguous()
        return [int(sample(many, {at: generator}, None, None)[at]) for _ in range(20)]

    return tokens(1, 0) == tokens(5, 3)


def never_zero() -> int:
    """How often a token was drawn that a processor has forbidden."""
    logits = torch.full((1000, VOCABULARY), float("-inf"))
    logits[:, 4999] = logits[:, 17] = 0.0
    ids = sample(logits, {}, None, None)
    return int((~torch.isin(ids, torch.tensor([17, 4999]))).sum())


if __name__ == "__main__":
    main()
