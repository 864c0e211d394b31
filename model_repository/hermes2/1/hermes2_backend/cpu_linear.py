"""Linears in float32 whose weights stay in 16 bits, for CPUs that can multiply neither bf16 nor INT8: FBGEMM's kernel.

A step reads every weight, and half of the bytes are read in half of the time; FBGEMM widens them in registers. With bf16 as vLLM
comes, such a CPU widens each number by instructions of its own (docs/performance.md). Imported in vLLM's own processes only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.layers import utils

MOST_LOST = 2.0**-16
"""Of a Linear's largest weight: what float16 may take from any of them. Weights that were bf16 or float16 lose nothing but
what is below float16's least step; the largest ones of float32 alone lose 2^-12."""
packed: list[Any] = []
"""FBGEMM's form of each Linear's weights. The compiled graph has their numbers: it cannot hold what is not a tensor."""
multiply: Any = torch.ops.quantized.linear_dynamic_fp16.default
library = torch.library.Library("hermes2", "DEF")
library.define("linear_fp16(Tensor x, int number, int outputs) -> Tensor")


def linear_fp16(x: Tensor, number: int, outputs: int) -> Tensor:
    """`x`: float32, (..., inputs). Returns float32, (..., outputs), `outputs` as the packed weights have."""
    result: Tensor = multiply(x, packed[number])
    return result


def shape_of_linear_fp16(x: Tensor, number: int, outputs: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


library.impl("linear_fp16", linear_fp16, "CPU")
library.impl("linear_fp16", shape_of_linear_fp16, "Meta")


def install() -> None:
    """Every Linear in float32 that is loaded after it in this process has it, if float16 holds its weights as they are."""
    vllms = utils.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, remove_weight: bool) -> None:
        if not (layer.weight.ndim == 2 and layer.weight.dtype == torch.float32 and is_kept(layer.weight)):
            vllms(layer, remove_weight)
            return
        layer.cpu_linear = packed_linear(layer.weight.detach())
        if remove_weight:
            layer.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)

    utils.dispatch_cpu_unquantized_gemm = dispatch


def is_kept(weight: Tensor) -> bool:
    """Whether float16 holds it as it is, but for MOST_LOST."""
    return not weight.is_meta and bool((weight.half().float() - weight).abs().max() <= MOST_LOST * weight.abs().max())


def packed_linear(weight: Tensor) -> Any:
    """`weight`: float32, (outputs, inputs). Returns what vLLM calls with (x, the layer's weight, bias)."""
    packed.append(torch.ops.quantized.linear_prepack_fp16(weight, None))
    number, outputs = len(packed) - 1, len(weight)

    def linear(x: Tensor, _: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = torch.ops.hermes2.linear_fp16(x, number, outputs)
        return y if bias is None else y + bias

    return linear
