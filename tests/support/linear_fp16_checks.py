"""What the float32 Linears of the CPU's worker put out, beside PyTorch's own, as JSON. Run by the engine's Python."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import torch
import vllm._custom_ops  # noqa: F401  # before the next line, which needs its kernels
from hermes2_backend import cpu_linear
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

SHAPES = ((960, 576), (576, 1536), (3072, 576), (4097, 65))
TOKENS = (1, 3, 8, 20, 65)


def main() -> None:
    torch.manual_seed(7)
    cpu_linear.install()
    found = {
        "far": max(far(tokens, *shape, biased) for tokens in TOKENS for shape in SHAPES for biased in (False, True)),
        "taken": [is_taken(weight) for weight in (from_bf16(), from_bf16().half().float(), from_bf16() * 2**-4)],
        "others": [
            is_taken(weight)
            for weight in (torch.randn(64, 64), from_bf16() * 2**22, from_bf16() * 2**-20, from_bf16().bfloat16())
        ],
        "compiled": compiled(),
    }
    print(json.dumps(found))


def from_bf16(outputs: int = 64, inputs: int = 64) -> torch.Tensor:
    return (torch.randn(outputs, inputs) * 0.05).bfloat16().float()


def loaded(weight: torch.Tensor, *, remove: bool = False) -> Any:
    layer = SimpleNamespace(weight=torch.nn.Parameter(weight, requires_grad=False), bias=None)
    how = UnquantizedLinearMethod() if remove else UnquantizedEmbeddingMethod()
    how.process_weights_after_loading(layer)
    return layer


def is_taken(weight: torch.Tensor) -> bool:
    before = len(cpu_linear.packed)
    loaded(weight)
    return len(cpu_linear.packed) == before + 1


def far(tokens: int, outputs: int, inputs: int, biased: bool) -> float:
    """The largest difference from float64's, as a share of the largest output."""
    weight, x = from_bf16(outputs, inputs), torch.randn(tokens, inputs)
    bias = torch.randn(outputs) if biased else None
    layer = loaded(weight, remove=True)
    if layer.weight.numel():
        raise AssertionError("the weights are kept twice")
    put = layer.cpu_linear(x, layer.weight, bias).double()
    exact = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    return float((put - exact).abs().max() / exact.abs().max())


def compiled() -> bool:
    """Whether a compiled graph with kernels called from C++ puts out the same, for other numbers of tokens, too."""
    layer = loaded(from_bf16())
    graph = torch.compile(
        lambda x: layer.cpu_linear(x, layer.weight, None) * 2,
        dynamic=True,
        fullgraph=True,
        options={"cpp_wrapper": True},
    )
    xs = torch.randn(5, 64), torch.randn(9, 64)
    return all(torch.equal(graph(x), layer.cpu_linear(x, layer.weight, None) * 2) for x in xs)


if __name__ == "__main__":
    main()
