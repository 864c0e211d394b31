"""An engine without a model, for tests of speed, faults and clients: everything around it stays real.

It repeats a fixed text, one word a token, or says what a file of rules has for the prompt (scripted_replies.py); at a
set pace, several tokens at a time where vLLM's would come so (engine.tokens_at_once), and it honours n, max_tokens and stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path

import prometheus_client

from .config import BackendConfig
from .engine import tokens_at_once
from .errors import InvalidArgument
from .generation import Delta, Generation, SequenceDelta, TokenLogprob
from .scripted_replies import ScriptedReplies, Token

WORDS = ("Paris", " is", " the", " capital", " of", " France", ".", " It", " lies", " on", " the", " Seine", ".")


class ScriptedEngine:
    def __init__(self, token_interval_ms: float, replies: ScriptedReplies | None = None, max_n: int = 128) -> None:
        self._interval_s = token_interval_ms / 1e3
        self._replies = replies
        self._registry = prometheus_client.CollectorRegistry()
        running = prometheus_client.Gauge("scripted_running", "Generations that run.", registry=self._registry)
        running.set_function(lambda: self._open)
        self._open = 0
        self.max_n = max_n

    @classmethod
    def from_config(cls, config: BackendConfig) -> ScriptedEngine:
        """Raises ValueError or OSError if the rules cannot be used."""
        replies = None
        if config.scripted_replies:
            replies = ScriptedReplies(Path(config.scripted_replies), Path(str(config.vllm["model"])))
        return cls(config.scripted_token_interval_ms, replies)

    async def generate(self, generation: Generation, request_id: str) -> AsyncGenerator[Delta, None]:
        budget = generation.sampling.get("max_tokens", 16)
        assert isinstance(budget, int)
        if budget < 1:
            raise InvalidArgument("must be at least 1", "max_tokens")
        stops = generation.sampling.get("stop", [])
        assert isinstance(stops, list)
        held = HeldBack(stops)
        ids = generation.prompt_ids
        size = len(ids) if ids is not None else len((generation.prompt_text or "").split())
        tokens, count, end = self._script(generation, budget)
        at_once = tokens_at_once(self._open)
        shown: list[str] = []
        gathered: list[Token] = []
        self._open += 1
        try:
            for position, token in enumerate(tokens, start=1):
                last = position == count
                text, stopped = held.release(token.text, last)
                shown.append(text)
                gathered.append(token)
                finish = "stop" if stopped else end if last else None
                if finish or (generation.stream and (position - 1) % at_once == 0):
                    await asyncio.sleep(self._interval_s * len(gathered))
                    sequences = [gained(generation, gathered, shown, position, finish) for _ in range(generation.n)]
                    yield Delta(sequences, size, 0, finish is not None)
                    gathered.clear()
                    shown.clear()
                if finish:
                    break
        finally:
            self._open -= 1

    def _script(self, generation: Generation, budget: int) -> tuple[Iterable[Token], int, str]:
        """The tokens to say, how many they are, and why the last one is the last."""
        reply = self._replies.find(generation) if self._replies else None
        if reply is None:
            return islice(cycle([Token(i, word) for i, word in enumerate(WORDS)]), budget), budget, "length"
        if len(reply.tokens) > budget:
            return reply.tokens[:budget], budget, "length"
        return reply.tokens, len(reply.tokens), reply.finish

    async def ping(self) -> None:
        return None

    def metrics(self) -> str:
        return prometheus_client.generate_latest(self._registry).decode()

    async def warm_up(self) -> None:
        return None

    def close(self) -> None:
        return None


def gained(
    generation: Generation, tokens: Sequence[Token], shown: Sequence[str], position: int, finish: str | None
) -> SequenceDelta:
    """By `tokens`, the last of which stands at `position`. `shown`: what each of them lets out."""
    wanted = generation.sampling.get("logprobs") is not None
    return SequenceDelta(
        text="".join(shown),
        token_ids=[token.id for token in tokens],
        logprobs=[[TokenLogprob(token.id, -0.1, 1, token.text)] for token in tokens] if wanted else None,
        cumulative_logprob=-0.1 * position,
        finish_reason=finish,
    )


class HeldBack:
    """Keeps the end of a text that may be the beginning of a stop string, so that none is ever seen."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._most = max(map(len, stops), default=1) - 1
        self._held = ""

    def release(self, text: str, last: bool) -> tuple[str, bool]:
        """What may be shown after `text` has come, and whether a stop string has ended it."""
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            return held[: min(found)], True
        cut = len(held) if last else max(len(held) - self._most, 0)
        self._held = held[cut:]
        return held[:cut], False
