"""A model in vLLM alone, with the kernels that serve it: a JSON object a line in, one a line out. Needs .venv-engine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from vllm import LLM, SamplingParams

WINDOW = 1024
"""Longest prompt and answer, tokens."""


class Engine:
    def __init__(self, folder: str, kv_cache_bytes: int) -> None:
        self._llm = LLM(
            folder,
            dtype="bfloat16",
            max_model_len=WINDOW,
            max_num_seqs=16,
            enforce_eager=True,
            enable_prefix_caching=False,
            kv_cache_memory_bytes=kv_cache_bytes,
            disable_log_stats=True,
        )

    def _generate(self, prompts: Sequence[Sequence[int]], parameters: SamplingParams) -> list[Any]:
        outputs: list[Any] = self._llm.generate(
            [{"prompt_token_ids": list(ids)} for ids in prompts], parameters, use_tqdm=False
        )
        return outputs

    def score(self, prompts: list[list[int]]) -> dict[str, object]:
        """Of each position but the first of each prompt: -log of the probability of its token, and the likeliest token."""
        losses, tops = [], []
        parameters = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1)
        for ids, output in zip(prompts, self._generate(prompts, parameters), strict=True):
            for token, found in zip(ids[1:], output.prompt_logprobs[1:], strict=True):
                losses.append(-found[token].logprob)
                tops.append(next(other for other, each in found.items() if each.rank == 1))
        return {"losses": losses, "tops": tops}

    def answer(self, prompts: list[list[int]], max_tokens: int) -> dict[str, object]:
        """Greedy."""
        outputs = self._generate(prompts, SamplingParams(max_tokens=max_tokens, temperature=0))
        return {"texts": [output.outputs[0].text for output in outputs]}

    def speed(self, streams: int, tokens: int) -> dict[str, object]:
        """Tokens/s of decoding, after prompts of 16 tokens, `streams` at once."""
        prompts = [[stream + 100] * 16 for stream in range(streams)]
        self._generate(prompts, SamplingParams(max_tokens=1, temperature=0))
        start = time.perf_counter()
        self._generate(prompts, SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True))
        return {"tokens_per_s": streams * tokens / (time.perf_counter() - start)}


def main(folder: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    engine = Engine(folder, kv_cache_bytes=2**28)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        do = asked.pop("do")
        print(json.dumps(getattr(engine, do)(**asked)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
