"""What the INT8 kernel of the CPU's worker puts out, beside the same integers in float64, as JSON. Run by the engine's Python."""

from __future__ import annotations

import json

import torch
import vllm._custom_ops  # noqa: F401  # before the next line, which needs its kernels
from hermes2_backend.cpu_worker import is_packed
from vllm.model_executor.kernels.linear.scaled_mm import cpu as int8_linears

SHAPES = ((960, 576), (576, 1536), (3072, 576), (4128, 64))
TOKENS = (1, 3, 8, 20, 65)


def main() -> None:
    torch.manual_seed(7)
    found = {
        "asked": hasattr(int8_linears, "check_cpu_sgl_kernel"),
        "taken": [is_packed(*shape, torch.int8) for shape in SHAPES],
        "others": [
            is_packed(960, 576, torch.bfloat16),
            is_packed(960, 570, torch.int8),
            is_packed(944, 576, torch.int8),
        ],
        "far": max(far(tokens, *shape) for tokens in TOKENS for shape in SHAPES),
    }
    print(json.dumps(found))


def far(tokens: int, outputs: int, inputs: int) -> float:
    """The largest difference, as a share of the largest output."""
    weights = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    scales = torch.rand(outputs) * 0.01 + 0.001
    x = (torch.randn(tokens, inputs) * torch.rand(tokens, 1).exp2()).bfloat16()
    packed = torch.ops._C.convert_weight_packed(weights)
    put = torch.ops._C.int8_scaled_mm_with_quant(x, packed, scales, None, torch.bfloat16, True).double()
    steps = x.double().abs().amax(dim=1, keepdim=True) / 127
    exact = (x.double() / steps).round() * steps @ (weights.double() * scales.double()[:, None]).T
    return float((put - exact).abs().max() / exact.abs().max())


if __name__ == "__main__":
    main()
