"""vLLM's AsyncLLM behind the engine interface: translates requests, outputs and errors, and decides nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import prometheus_client

from . import tracing
from . import vllm_compat as vllm
from .engine import tokens_at_once
from .errors import BackendError, Internal, InvalidArgument, Unavailable
from .generation import Delta, Generation, SequenceDelta, TokenLogprob

WARM_UP: tuple[dict[str, object], ...] = (
    {"max_tokens": 4, "temperature": 0.0},
    {"max_tokens": 4, "n": 2, "temperature": 1.0, "seed": 1, "top_p": 0.9, "top_k": 40, "min_p": 0.05},
    {"max_tokens": 4, "logprobs": 5, "logit_bias": {5: -1.0}, "min_tokens": 2, "stop": ["\n"]},
    {"max_tokens": 4, "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1},
    {"max_tokens": 4, "structured_outputs": {"json": '{"type": "boolean"}'}},
    {"max_tokens": 1, "prompt_logprobs": 1},
)
"""Between them they touch every sampler path that a request can."""


CPU_WORKER = f"{__package__}.cpu_worker.Worker"
WARM_BATCH = 32
"""Up to so many sequences are decoded together once before anybody asks: the first step of each size makes its kernels."""


class VllmEngine:
    """Must be created on the event loop that it will serve: vLLM starts its output handler there."""

    def __init__(self, engine_args: Mapping[str, object]) -> None:
        """`engine_args`: names and values of vLLM's AsyncEngineArgs. Starts vLLM's processes and loads the model."""
        engine_args = {**tracing.arguments(os.environ), **engine_args}
        self._traces = engine_args.get("otlp_traces_endpoint") is not None
        if vllm.current_platform.is_cpu():
            engine_args = {"worker_cls": CPU_WORKER, **engine_args}
        args = vllm.AsyncEngineArgs(**engine_args)
        self._engine = vllm.AsyncLLM.from_engine_args(args)
        self.max_n = self._engine.scheduler_config.max_num_seqs
        self._open = 0
        self._warmed = itertools.count()

    async def generate(self, generation: Generation, request_id: str) -> AsyncGenerator[Delta, None]:
        # vLLM refuses several greedy sequences, OpenAI's API does not: they are all the same, so one is run for all.
        copies = generation.n if generation.sampling.get("temperature") == 0 else 1
        params = sampling_params(generation, generation.n // copies)
        params.stream_interval = tokens_at_once(self._open)
        outputs = self._engine.generate(
            prompt(generation),
            params,
            request_id,
            trace_headers={"traceparent": generation.traceparent} if generation.traceparent else None,
        )
        num_cached_tokens = 0
        self._open += 1
        try:
            with translated_errors():
                async for output in outputs:
                    num_cached_tokens = max(num_cached_tokens, output.num_cached_tokens or 0)
                    if any(completion.finish_reason == "error" for completion in output.outputs):
                        raise failed(generation)
                    yield to_delta(output, generation.n, copies, num_cached_tokens)
        finally:
            self._open -= 1

    async def ping(self) -> None:
        if self._engine.errored:
            raise Internal("the engine is dead")
        with translated_errors():
            await self._engine.is_paused()

    def metrics(self) -> str:
        return prometheus_client.generate_latest(vllm.get_prometheus_registry()).decode()

    async def warm_up(self) -> None:
        for sampling in WARM_UP:
            await self._warm(sampling)
        sizes = range(1, min(WARM_BATCH, self.max_n) + 1)
        await asyncio.gather(*(self._warm({"max_tokens": tokens, "ignore_eos": True}) for tokens in sizes))

    async def _warm(self, sampling: Mapping[str, object]) -> None:
        generation = Generation([5, 6, 7, 8], None, sampling, True, False, frozenset())
        async for _ in self.generate(generation, f"warm-up-{next(self._warmed)}"):
            pass

    def close(self) -> None:
        self._engine.shutdown()
        if self._traces:
            tracing.flush()


def failed(generation: Generation) -> BackendError:
    """vLLM ends a request with this reason if its grammar does not compile, and does not say more."""
    if "structured_outputs" in generation.sampling:
        return InvalidArgument("this structure cannot be compiled", "structured_outputs")
    return Internal("the engine ended the generation with an error")


def sampling_params(generation: Generation, n: int) -> Any:
    kind = vllm.RequestOutputKind.DELTA if generation.stream else vllm.RequestOutputKind.FINAL_ONLY
    arguments: dict[str, Any] = {**generation.sampling, "n": n}
    try:
        if structure := arguments.get("structured_outputs"):
            arguments["structured_outputs"] = vllm.StructuredOutputsParams(**structure)
        return vllm.SamplingParams(**arguments, output_kind=kind)
    except (vllm.VLLMClientError, ValueError, TypeError) as exc:
        raise invalid(exc) from exc


def prompt(generation: Generation) -> Any:
    if generation.prompt_ids is not None:
        return vllm.tokens_input(list(generation.prompt_ids), cache_salt=generation.cache_salt)
    assert generation.prompt_text is not None
    salt = {"cache_salt": generation.cache_salt} if generation.cache_salt else {}
    return vllm.TextPrompt(prompt=generation.prompt_text, **salt)


def to_delta(output: Any, n: int, copies: int, num_cached_tokens: int) -> Delta:
    """`copies`: of how many of the n sequences each of vLLM's outputs is the content."""
    sequences = [SequenceDelta() for _ in range(n)]
    for completion in output.outputs:
        for index in range(completion.index, completion.index + copies):
            sequences[index] = SequenceDelta(
                text=completion.text,
                token_ids=list(completion.token_ids),
                logprobs=None
                if completion.logprobs is None
                else list(logprobs(completion.token_ids, completion.logprobs)),
                cumulative_logprob=completion.cumulative_logprob,
                finish_reason=completion.finish_reason,
            )
    prompt_ids = output.prompt_token_ids or ()
    prompt = list(logprobs(prompt_ids, output.prompt_logprobs)) if output.prompt_logprobs else None
    return Delta(sequences, len(prompt_ids), num_cached_tokens, output.finished, prompt)


def logprobs(token_ids: Iterable[int], positions: Iterable[Any]) -> Iterator[list[TokenLogprob]]:
    """Per token its candidates, the token itself first: vLLM's dict alone does not tell which it was.

    A prompt's first token has no candidates: nothing stands before it.
    """
    for token_id, candidates in zip(token_ids, positions, strict=True):
        ordered = sorted((candidates or {}).items(), key=lambda item: item[0] != token_id)
        yield [TokenLogprob(i, c.logprob, c.rank, c.decoded_token) for i, c in ordered]


@contextmanager
def translated_errors() -> Iterator[None]:
    try:
        yield
    except BackendError:
        raise
    except vllm.EngineDeadError as exc:
        raise Unavailable("the engine is dead") from exc
    except vllm.GracefulHTTPError as exc:
        raise Unavailable(str(exc) or "the engine's queue is full") from exc
    except (vllm.VLLMClientError, ValueError) as exc:
        raise invalid(exc) from exc
    except vllm.EngineGenerateError as exc:
        raise Internal(f"the engine failed: {exc.__cause__!r}") from exc


def invalid(exc: Exception) -> InvalidArgument:
    """vLLM names the parameter where it knows it; its first argument is the message without its suffixes."""
    message = str(exc.args[0]) if exc.args else str(exc)
    structural = "structural tag" in message or "structured_outputs" in message or "JSON schema" in message
    unnamed = "structured_outputs" if structural else "sampling_parameters"
    return InvalidArgument(message, getattr(exc, "parameter", None) or unnamed)
