"""What the attention of the CPU's worker puts out, beside vLLM's own, as JSON. Run by the engine's Python."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import torch
import vllm._custom_ops as ops
from hermes2_backend import cpu_attention
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl, CPUAttentionMetadata, _get_attn_isa
from vllm.v1.attention.backends.registry import AttentionBackendEnum

HEADS, KV_HEADS, SIZE, BLOCK = 9, 3, 64, 32
BATCHES = ([(1, 1)], [(60, 60)], [(1, 90), (28, 60), (1, 33), (7, 7)])
"""Of each sequence: how many tokens are new, and how many there are with them."""


def main() -> None:
    torch.manual_seed(7)
    before = AttentionBackendEnum.CPU_ATTN.get_class()
    cpu_attention.install()
    chosen = AttentionBackendEnum.CPU_ATTN.get_class()
    found: dict[str, Any] = {
        "chosen": chosen is cpu_attention.Backend and before is not chosen,
        "writes itself": chosen.forward_includes_kv_cache_update and not before.forward_includes_kv_cache_update,
        "same": [same(batch) for batch in BATCHES for _ in range(3)],
    }
    found["warm"] = bool((made(cpu_attention.Implementation).forward(*[None] * 6, torch.ones(2, 9, 64)) == 1).all())
    print(json.dumps(found))


def made(kind: type) -> Any:
    config = VllmConfig()
    config.model_config = SimpleNamespace(dtype=torch.bfloat16)
    with set_current_vllm_config(config):
        return kind(HEADS, SIZE, SIZE**-0.5, KV_HEADS, None, None, "auto")


def same(batch: list[tuple[int, int]]) -> bool:
    """Whether output and cache are those of vLLM's two calls, bit for bit."""
    tokens, blocks = sum(new for new, _ in batch), 4 * len(batch) + 1
    query, key, value = (torch.randn(tokens, heads, SIZE).bfloat16() for heads in (HEADS, KV_HEADS, KV_HEADS))
    layer: Any = SimpleNamespace(isa=_get_attn_isa(torch.bfloat16, BLOCK, SIZE), _k_scale_float=1.0, _v_scale_float=1.0)
    cache = torch.randn(blocks, KV_HEADS, BLOCK, 2 * SIZE).bfloat16()
    table = torch.randperm(blocks)[: 4 * len(batch)].to(torch.int32).view(len(batch), 4)
    metadata = described(batch, table, layer.isa)
    ours, theirs = cache.clone(), cache.clone()
    mine, vllms = made(cpu_attention.Implementation), made(CPUAttentionBackendImpl)
    put, expected = torch.empty_like(query), torch.empty_like(query)
    for _ in range(2):  # with views of the cache that are made, and that are kept
        mine.forward(layer, query, key, value, ours, metadata, put)
    vllms.do_kv_cache_update(layer, key, value, theirs, metadata.slot_mapping)
    vllms.forward(layer, query, key, value, theirs, metadata, expected)
    return torch.equal(put, expected) and torch.equal(ours, theirs) and not torch.equal(ours, cache)


def described(batch: list[tuple[int, int]], table: torch.Tensor, isa: str) -> CPUAttentionMetadata:
    lengths = torch.tensor([length for _, length in batch], dtype=torch.int32)
    starts = torch.tensor([0, *(new for new, _ in batch)]).cumsum(0).to(torch.int32)
    places = [(row, at) for row, (new, length) in enumerate(batch) for at in range(length - new, length)]
    slots = torch.tensor([int(table[row, at // BLOCK]) * BLOCK + at % BLOCK for row, at in places])
    plan = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=len(batch),
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=SIZE,
        seq_lens=lengths,
        dtype=torch.bfloat16,
        query_start_loc=starts,
        causal=True,
        sliding_window_size=-1,
        isa=isa,
        enable_kv_split=True,
        dynamic_causal=None,
        kv_cache_dtype="auto",
    )
    return CPUAttentionMetadata(
        num_actual_tokens=len(places),
        max_query_len=max(new for new, _ in batch),
        query_start_loc=starts,
        max_seq_len=int(lengths.max()),
        seq_lens=lengths,
        block_table=table,
        slot_mapping=slots,
        scheduler_metadata=plan,
    )


if __name__ == "__main__":
    main()
