"""An engine port that does what a test tells it. Passes the same contract as the real adapter (tests/contract)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence

from frontend.domain.errors import InvalidRequest, ServiceError, Unavailable
from frontend.domain.generation import (
    Candidate,
    ChoiceDelta,
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    TokenLogprobs,
)

WORDS = ("Paris", " is", " the", " capital", " of", " France", ".")


class FakeEngine:
    """Says WORDS over and over, or `says` once and stops, a piece a token.

    After `fail_after` deltas it raises `error`; with `hold` it waits for the event before each.
    """

    def __init__(
        self,
        *,
        error: ServiceError | None = None,
        fail_after: int = 0,
        hold: asyncio.Event | None = None,
        token_ids: Sequence[int] = (5,),
        says: Sequence[str] | None = None,
    ) -> None:
        self.requests: list[GenerationRequest] = []
        self.running = 0
        self.healthy = True
        self._error = error
        self._fail_after = fail_after
        self._hold = hold
        self._token_ids = token_ids
        self._says = says

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        self.requests.append(request)
        budget = request.sampling.max_tokens
        if budget is None or budget < 1:
            raise InvalidRequest("must be at least 1", param="max_tokens")
        self.running += 1
        try:
            gathered: list[GenerationDelta] = []
            for position in range(budget if self._says is None else min(budget, len(self._says))):
                await self._pause(position)
                gathered.append(self._delta(request, position))
                if request.stream:
                    yield gathered.pop()
            if not request.stream:
                yield merged(gathered)
        finally:
            self.running -= 1

    async def _pause(self, position: int) -> None:
        await asyncio.sleep(0)
        if self._hold is not None:
            await self._hold.wait()
        if self._error is not None and position == self._fail_after:
            raise self._error

    def _delta(self, request: GenerationRequest, position: int) -> GenerationDelta:
        finish: FinishReason | None = None
        if self._says is not None and position + 1 == len(self._says):
            finish = "stop"
        elif position + 1 == request.sampling.max_tokens:
            finish = "length"
        logprobs = None
        if request.sampling.logprobs is not None:
            candidates = [Candidate(self._token_ids[position % len(self._token_ids)], -0.25), Candidate(6, -0.5)]
            logprobs = [TokenLogprobs(candidates[0], candidates[: request.sampling.logprobs])]
        text = WORDS[position % len(WORDS)] if self._says is None else self._says[position]
        choices = [ChoiceDelta(i, text, 1, logprobs, finish) for i in range(request.sampling.n)]
        return GenerationDelta(choices, 0, self._prompt_logprobs(request) if position == 0 else None)

    def _prompt_logprobs(self, request: GenerationRequest) -> list[TokenLogprobs] | None:
        if request.sampling.prompt_logprobs is None:
            return None
        first, *rest = request.prompt_ids
        return [TokenLogprobs(Candidate(first, math.nan), ()), *(TokenLogprobs(Candidate(i, -1.0), ()) for i in rest)]

    async def check(self) -> None:
        if not self.healthy:
            raise Unavailable("The engine is not available.")

    async def metrics(self) -> str:
        await self.check()
        return f"fake_running {self.running}\n"


def merged(deltas: Sequence[GenerationDelta]) -> GenerationDelta:
    choices = []
    for index in range(len(deltas[0].choices)):
        parts = [delta.choices[index] for delta in deltas]
        logprobs = [p for part in parts for p in part.logprobs or ()] if parts[0].logprobs is not None else None
        choices.append(
            ChoiceDelta(index, "".join(p.text for p in parts), len(parts), logprobs, parts[-1].finish_reason)
        )
    return GenerationDelta(choices, 0, deltas[0].prompt_logprobs)
