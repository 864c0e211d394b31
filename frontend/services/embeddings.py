"""Texts to vectors: tokenises, refuses what the model would not read whole, and sends batches that fit it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager

import msgspec
import numpy as np
from numpy.typing import NDArray

from frontend.domain.documents import EmbeddingPin
from frontend.domain.embedding.card import EmbeddingCard
from frontend.domain.embedding.encoder import EmbeddingEncoder
from frontend.domain.errors import ContextLengthExceeded, InvalidRequest
from frontend.domain.ports import Embedder
from frontend.observability import metrics
from frontend.services.models import Model, ModelService
from retrieval.chunking import Tokens

MAX_TOTAL_TOKENS = 300_000
"""OpenAI's bound on all inputs of one request together."""
CHARS_PER_TOKEN = 128
"""No token of honest text is longer (WordPiece reads words of up to 100 characters): a text with more characters than
the model's tokens could hold is refused before anybody tokenises it."""
BATCH_INPUTS = 16
"""`max_batch_size` of the model: a contract test holds the two together."""
BATCH_TOKENS = 2048
"""What the model works on at once (embedder_backend/batching.py): 0.5 s on one core."""
IN_FLIGHT = 2
"""Batches of one request that the model has at a time: it works on one while the other is on its way."""
WINDOW_TOKENS = 254
"""Of a longer text, so many tokens at most are read as one vector; of chunks of 800 it is 200. All that MiniLM reads: Cranfield
has .431 with it, .429 with 200 (`python -m perf retrieval --quality`)."""


class EmbeddingTask(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    inputs: Sequence[str | Sequence[int]]
    """Texts, or token ids of texts as the embedding model has them, without its control tokens; none is empty."""
    dimensions: int | None


class Embeddings(msgspec.Struct, frozen=True):
    model: Model
    vectors: NDArray[np.float32]
    """(n, dim) float32, L2-normalised, in the order of the inputs."""
    prompt_tokens: int
    """Tokens that the model has read, control tokens included."""


class EmbeddingService:
    def __init__(
        self,
        models: ModelService,
        card: EmbeddingCard,
        encoder: EmbeddingEncoder,
        embedder: Embedder,
        executor: Executor,
        inline_chars: int,
    ) -> None:
        self._models = models
        self._card = card
        self._encoder = encoder
        self._embedder = embedder
        self._executor = executor
        self._inline_chars = inline_chars

    async def create(
        self, task: EmbeddingTask, counted: Callable[[int, str], AbstractAsyncContextManager[None]]
    ) -> Embeddings:
        """`counted` is entered with the number of tokens, and the model, while the model has them.

        Raises NotFound, InvalidRequest, ContextLengthExceeded, and what `counted` and the embedder raise.
        """
        model = self._models.get_embedding(task.model)
        if task.dimensions not in (None, self._card.dimensions):
            raise InvalidRequest(
                f"The model {model.id!r} has {self._card.dimensions} dimensions, and no others.", param="dimensions"
            )
        rows = await self._tokenize(task.inputs)
        prompt_tokens = sum(len(row) for row in rows)
        async with counted(prompt_tokens, model.root):
            return Embeddings(model, await self._embed(rows), prompt_tokens)

    @property
    def pin(self) -> EmbeddingPin:
        """How the vectors of windows are made."""
        card = self._card
        window_tokens = min(WINDOW_TOKENS, card.max_tokens - self._encoder.num_control_tokens)
        return EmbeddingPin(model=card.id, digest=card.digest, dimensions=card.dimensions, window_tokens=window_tokens)

    def tokens(self, text: str) -> Tokens:
        """The text's own, and where they stand. Blocks: 0.3 s for a million characters."""
        return self._encoder.tokens(text)

    async def vectors(self, windows: Sequence[Sequence[int]], *, urgent: bool) -> NDArray[np.float32]:
        """(n, dim) float32, L2-normalised, in the order of the windows.

        `windows`: ids that `tokens` gave, at most `pin.window_tokens` each. Raises what the embedder raises.
        """
        return await self._embed([self._encoder.frame(ids) for ids in windows], urgent=urgent)

    async def _embed(self, rows: Sequence[Sequence[int]], *, urgent: bool | None = None) -> NDArray[np.float32]:
        """`rows`: with their control tokens. `urgent`: None: if it is one batch."""
        vectors = np.empty((len(rows), self._card.dimensions), np.float32)
        plan = list(batches([len(row) for row in rows]))
        waiting = iter(plan)
        urgent = len(plan) == 1 if urgent is None else urgent

        async def work() -> None:
            for batch in waiting:
                chosen = [rows[index] for index in batch]
                vectors[batch] = await self._embedder.embed(chosen, urgent=urgent)
                metrics.EMBEDDED.inc(sum(len(row) for row in chosen))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(work())
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        return vectors

    async def _tokenize(self, inputs: Sequence[str | Sequence[int]]) -> list[list[int]]:
        if sum(len(each) for each in inputs) <= self._inline_chars:
            return self._rows(inputs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._rows, inputs)

    def _rows(self, inputs: Sequence[str | Sequence[int]]) -> list[list[int]]:
        """Token ids as the model reads them. Raises InvalidRequest, ContextLengthExceeded."""
        rows: list[list[int]] = []
        total = 0
        for number, each in enumerate(inputs):
            param = f"input[{number}]" if len(inputs) > 1 else "input"
            ids = self._encode(each, param) if isinstance(each, str) else self._checked(each, param)
            rows.append(self._encoder.frame(ids))
            total += len(rows[-1])
            if total > MAX_TOTAL_TOKENS:
                raise ContextLengthExceeded(
                    f"The inputs of one request may have {MAX_TOTAL_TOKENS} tokens together; these have more.",
                    param="input",
                )
        return rows

    def _encode(self, text: str, param: str) -> list[int]:
        limit = self._card.max_tokens
        if len(text) > limit * CHARS_PER_TOKEN:
            raise ContextLengthExceeded(
                f"This model reads at most {limit} tokens of one input, and {param} has {len(text)} characters."
                " Please split it.",
                param=param,
            )
        ids = self._encoder.encode(text)
        self._check_length(ids, param)
        return ids

    def _checked(self, ids: Sequence[int], param: str) -> Sequence[int]:
        self._check_length(ids, param)
        if (foreign := self._encoder.first_foreign(ids)) is not None:
            raise InvalidRequest(
                f"{foreign} is not a token of a text for this model: {param} must hold token ids of its own vocabulary"
                f" (0 to {self._encoder.vocab_size - 1}), without the control tokens around a text.",
                param=param,
            )
        return ids

    def _check_length(self, ids: Sequence[int], param: str) -> None:
        size, limit = len(ids) + self._encoder.num_control_tokens, self._card.max_tokens
        if size > limit:
            raise ContextLengthExceeded(
                f"This model reads at most {limit} tokens of one input. However, {param} has {size}"
                f" ({self._encoder.num_control_tokens} of them control tokens). Please split it.",
                param=param,
            )


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indexes of rows that go together: neighbours in length, so that a batch holds little padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) == BATCH_INPUTS or (len(batch) + 1) * lengths[index] > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
