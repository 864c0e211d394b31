"""An engine without a model, for tests of speed, faults and clients: everything around it stays real.

It repeats a fixed text, one word a token, at a set pace, and honours n, max_tokens and stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import prometheus_client

from .errors import InvalidArgument
from .generation import Delta, Generation, SequenceDelta, TokenLogprob

WORDS = ("Paris", " is", " the", " capital", " of", " France", ".", " It", " lies", " on", " the", " Seine", ".")


class ScriptedEngine:
    def __init__(self, token_interval_ms: float, max_n: int = 128) -> None:
        self._interval_s = token_interval_ms / 1e3
        self._registry = prometheus_client.CollectorRegistry()
        self._running = prometheus_client.Gauge("scripted_running", "Generations that run.", registry=self._registry)
        self.max_n = max_n

    async def generate(self, generation: Generation, request_id: str) -> AsyncGenerator[Delta, None]:
        budget = generation.sampling.get("max_tokens", 16)
        assert isinstance(budget, int)
        if budget < 1:
            raise InvalidArgument("must be at least 1", "max_tokens")
        stops = generation.sampling.get("stop", [])
        assert isinstance(stops, list)
        ids = generation.prompt_ids
        size = len(ids) if ids is not None else len((generation.prompt_text or "").split())
        whole = Delta([SequenceDelta() for _ in range(generation.n)], size, 0, False)
        with self._running.track_inprogress():
            for position in range(budget):
                await asyncio.sleep(self._interval_s)
                word = WORDS[position % len(WORDS)]
                stopped = any(stop in word for stop in stops)
                finish = "stop" if stopped else "length" if position + 1 == budget else None
                sequences = [self._token(generation, word, position, finish) for _ in range(generation.n)]
                delta = Delta(sequences, size, 0, finish is not None)
                if generation.stream:
                    yield delta
                else:
                    whole.absorb(delta)
                if finish:
                    break
        if not generation.stream:
            yield whole

    def _token(self, generation: Generation, word: str, position: int, finish: str | None) -> SequenceDelta:
        token_id = position % len(WORDS)
        wanted = generation.sampling.get("logprobs") is not None
        return SequenceDelta(
            text="" if finish == "stop" else word,
            token_ids=[token_id],
            logprobs=[[TokenLogprob(token_id, -0.1, 1, word)]] if wanted else None,
            cumulative_logprob=-0.1 * (position + 1),
            finish_reason=finish,
        )

    async def ping(self) -> None:
        return None

    def metrics(self) -> str:
        return prometheus_client.generate_latest(self._registry).decode()

    async def warm_up(self) -> None:
        return None

    def close(self) -> None:
        return None
