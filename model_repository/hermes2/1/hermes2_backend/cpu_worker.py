"""vLLM's worker on a CPU with a sampler that is fast there (cpu_sampler.py). Imported in vLLM's own processes only."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor
from vllm.v1.worker.cpu_worker import CPUWorker

from . import cpu_sampler


class Worker(CPUWorker):  # type: ignore[misc]  # vLLM is not in the environment in which types are checked
    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        sampler = self.model_runner.sampler.topk_topp_sampler
        if sampler.logprobs_mode.startswith("raw"):  # the others want logits as they are after top_k and top_p
            sampler.forward = sample


def sample(
    logits: Tensor, generators: dict[int, Generator], top_k: Tensor | None, top_p: Tensor | None
) -> tuple[Tensor, None]:
    return cpu_sampler.sample(logits, generators, top_k, top_p), None
