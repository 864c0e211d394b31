"""vLLM's worker on a CPU with what is fast there: sampler, attention, kernels for Linears, less Python between them.

Imported in vLLM's own processes only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from vllm import envs
from vllm.model_executor.kernels.linear.scaled_mm import cpu as int8_linears
from vllm.v1.worker.cpu_worker import CPUWorker

from . import cpu_attention, cpu_linear, cpu_sampler

FROM_CPP = {"cpp_wrapper": True, "cpp_wrapper_build_separate": True}
"""The compiled graph calls its kernels from C++, which PyTorch can do where vLLM's names of layers are strings. The second makes
it in a third of the time (2 s of a first start, not 27)."""


class Worker(CPUWorker):  # type: ignore[misc]  # vLLM is not in the environment in which types are checked
    def load_model(self, *args: Any, **kwargs: Any) -> None:
        cpu_attention.install()
        cpu_linear.install()
        if not envs.VLLM_USE_LAYERNAME:
            self.vllm_config.compilation_config.inductor_compile_config |= FROM_CPP
        if torch.cpu._is_vnni_supported():
            int8_linears.check_cpu_sgl_kernel = is_packed
        super().load_model(*args, **kwargs)
        sampler = self.model_runner.sampler.topk_topp_sampler
        if sampler.logprobs_mode.startswith("raw"):  # the others want logits as they are after top_k and top_p
            sampler.forward = sample


def is_packed(outputs: int, inputs: int, dtype: torch.dtype) -> bool:
    """Whether vLLM's SGL kernel takes these weights instead of oneDNN's.

    vLLM asks for AMX, which the kernel does not need: with AVX512-VNNI alone it takes a half of oneDNN's time for 1 token and
    four fifths for 20, with weights from memory (docs/performance.md).
    """
    return dtype == torch.int8 and inputs % 32 == 0 and outputs % 32 == 0


def sample(
    logits: Tensor, generators: dict[int, Generator], top_k: Tensor | None, top_p: Tensor | None
) -> tuple[Tensor, None]:
    return cpu_sampler.sample(logits, generators, top_k, top_p), None
