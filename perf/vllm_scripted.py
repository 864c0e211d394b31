"""vLLM's own API server over an engine that computes nothing, at one of two seams. Needs .venv-engine.

executor  `vllm serve ... --distributed-executor-backend perf.vllm_scripted.ScriptedExecutor`: all of vLLM is as it comes, only
          the model is not there. Its API server's process checks requests for the engine, sends them to EngineCore, and
          decodes, detokenises and counts what comes back. That is what `vllm serve` costs beside the engine.
client    `python -m perf.vllm_scripted serve ...`: AsyncLLM is left out as well, and ready text comes from where it stood. What
          is left is HTTP, the chat's template, the tokenizer and the chunks: the equal of our service with its scripted engine,
          which takes the place of AsyncLLM, too. So it is this one that a ratio may be taken of.

Tokens come at a step's end to all streams at once, as those of an engine do; `--additional-config '{"step_ms": 20}'` sets how
long one takes. Prompts are read within a step, however many they are: `--max-num-batched-tokens` must leave room for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from vllm.entrypoints.cli import main as cli
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import async_llm
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.v1.executor import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput

TEXT = " Paris is the capital of France. It lies on the Seine."
"""Said again and again."""


class Pace:
    """Steps that are late do not catch up."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._end = 0.0

    def wait_s(self) -> float:
        """Until the step that begins now has ended."""
        now = time.monotonic()
        self._end += self._step_s
        if self._end < now:
            self._end = now + self._step_s
        return self._end - now


def pace(vllm_config: Any) -> Pace:
    return Pace(vllm_config.additional_config["step_ms"] / 1e3)


class ScriptedExecutor(Executor):  # type: ignore[misc]  # vLLM has no types here
    """Stands for all workers: each step gives each sequence the same next token of the text."""

    def _init_executor(self) -> None:
        self._pace = pace(self.vllm_config)
        self._ids = cached_tokenizer_from_config(self.model_config).encode(TEXT, add_special_tokens=False)
        self._steps = 0

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        future: Future[Any] = Future()
        future.set_result(self._step(list(scheduler_output.num_scheduled_tokens)))
        return future if non_block else future.result()

    def _step(self, requests: Sequence[str]) -> ModelRunnerOutput:
        if not requests:  # some have ended, none goes on
            return EMPTY_MODEL_RUNNER_OUTPUT
        time.sleep(self._pace.wait_s())
        self._steps += 1
        token = self._ids[self._steps % len(self._ids)]
        positions = {request: position for position, request in enumerate(requests)}
        return ModelRunnerOutput(list(requests), positions, [[token] for _ in requests])

    def get_kv_cache_specs(self) -> list[dict[str, FullAttentionSpec]]:
        """One layer, of which the scheduler counts the blocks."""
        block_size = self.cache_config.block_size
        return [{"layer": FullAttentionSpec(block_size=block_size, num_kv_heads=1, head_size=1, dtype=torch.int8)}]

    def determine_available_memory(self) -> list[int]:
        """For 2**20 tokens: a key and a value of a byte each."""
        return [2 * 2**20]

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        return [["LBNHC"]]

    def compile_or_warm_up_model(self) -> None:
        return None

    def collective_rpc(self, method: Any, *_args: object, **_kwargs: object) -> list[Any]:
        return [("generate",) if method == "get_supported_tasks" else None]

    def check_health(self) -> None:
        return None


class ScriptedClient(async_llm.AsyncLLM):  # type: ignore[misc]  # vLLM has no types here
    """What the API server sees of an engine, without one."""

    def __init__(self, vllm_config: Any, **_: object) -> None:
        self.vllm_config, self.model_config = vllm_config, vllm_config.model_config
        self.observability_config = vllm_config.observability_config
        self.renderer = async_llm.renderer_from_config(vllm_config)
        self.input_processor = async_llm.InputProcessor(vllm_config, self.renderer)
        self.logger_manager = None
        tokenizer = self.renderer.get_tokenizer()
        self._pieces = [
            (token, tokenizer.decode([token])) for token in tokenizer.encode(TEXT, add_special_tokens=False)
        ]
        self._pace = pace(vllm_config)
        self._streams: dict[str, Stream] = {}
        self._steps = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._pace.wait_s())
            number += 1
            token, text = self._pieces[number % len(self._pieces)]
            for stream in list(self._streams.values()):
                if stream.put(token, text):
                    del self._streams[stream.request_id]

    async def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **_: object
    ) -> AsyncGenerator[RequestOutput, None]:
        """Only for streams: the outputs are deltas. Those that its reader is too slow for become one, as vLLM's own do."""
        stream = Stream(prompt["prompt_token_ids"], sampling_params, request_id)
        self._streams[request_id] = stream
        try:
            finished = False
            while not finished:
                output = stream.outputs.get_nowait() or await stream.outputs.get()
                finished = output.finished
                yield output
        finally:
            self._streams.pop(request_id, None)

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    async def reset_mm_cache(self) -> None:
        return None

    @property
    def errored(self) -> bool:
        return False

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        return None

    def shutdown(self, timeout: float | None = None) -> None:
        async_llm.cancel_task_threadsafe(self._steps)


class Stream:
    def __init__(self, prompt_ids: list[int], sampling: SamplingParams, request_id: str) -> None:
        self.request_id = request_id
        self.outputs = RequestOutputCollector(sampling.output_kind, request_id)
        self._prompt_ids = prompt_ids
        self._left = sampling.max_tokens

    def put(self, token: int, text: str) -> bool:
        """Whether it was the last one."""
        self._left -= 1
        last = self._left <= 0
        completion = CompletionOutput(0, text, [token], None, None, finish_reason="length" if last else None)
        self.outputs.put(RequestOutput(self.request_id, None, self._prompt_ids, None, [completion], last))
        return bool(last)


def main() -> None:
    async_llm.AsyncLLM = ScriptedClient
    cli.main()


if __name__ == "__main__":
    main()
