"""vLLM's attention on a CPU with less Python around its two kernels: both in one call, and the halves of the cache kept.

Of a step with one sequence, vLLM's own way there is a fifth (docs/performance.md). Imported in vLLM's own processes only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

write: Any = torch.ops._C.cpu_attn_reshape_and_cache.default
attend: Any = torch.ops._C.cpu_attention_with_kv_cache.default


def install() -> None:
    """Every model that is loaded after it in this process has it."""
    register_backend(AttentionBackendEnum.CPU_ATTN, f"{__name__}.Backend")


class Backend(CPUAttentionBackend):  # type: ignore[misc]  # vLLM is not in the environment in which types are checked
    forward_includes_kv_cache_update = True

    @staticmethod
    def get_impl_cls() -> type[Implementation]:
        return Implementation


class Implementation(CPUAttentionBackendImpl):  # type: ignore[misc]
    _halves: tuple[Tensor, Tensor, Tensor] | None = None
    """A layer's cache, and views of its keys and its values."""

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """`query`, `output`: (tokens, heads, head_size); `key`, `value`: (tokens, kv_heads, head_size). Returns `output`.

        `kv_cache`: (blocks, kv_heads, block_size, 2 * head_size).
        """
        if attn_metadata is None:  # while vLLM makes its kernels
            return output
        if key is not None and self.kv_sharing_target_layer_name is None:
            plain = self.attn_type == AttentionType.DECODER and self.sinks is None
            if plain and len(query) == attn_metadata.num_actual_tokens:
                self._forward(layer, query, key, value, kv_cache, attn_metadata, output)
                return output
            self.do_kv_cache_update(layer, key, value, kv_cache, attn_metadata.slot_mapping)
        more = output_scale, output_block_scale
        return super().forward(layer, query, key, value, kv_cache, attn_metadata, output, *more)

    def _forward(
        self, layer: Any, query: Tensor, key: Tensor, value: Any, kv_cache: Tensor, metadata: Any, output: Tensor
    ) -> None:
        if self._halves is None or self._halves[0] is not kv_cache:
            blocks, heads, size, _ = kv_cache.shape
            self._halves = kv_cache, *kv_cache.view(blocks, heads, size * 2, -1).chunk(2, dim=2)
        _, keys, values = self._halves
        stored = layer._k_scale_float, layer._v_scale_float, self.kv_cache_dtype
        write(key, value, keys, values, metadata.slot_mapping, layer.isa, *stored)
        attend(
            query,
            keys,
            values,
            output,
            metadata.query_start_loc,
            metadata.seq_lens,
            self.scale,
            metadata.causal,
            self.alibi_slopes,
            self.sliding_window,
            metadata.block_table,
            self.logits_soft_cap,
            metadata.scheduler_metadata,
            None,
            metadata.dynamic_causal,
            *stored,
        )
