"""One plain completion: text in, its continuation out."""

from __future__ import annotations

import msgspec

from frontend.domain.generation import Sampling
from frontend.domain.principal import Principal
from frontend.services.generate import Generator, Reply
from frontend.services.models import ModelService
from frontend.services.tokenize import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""What OpenAI documents for this route."""


class CompletionTask(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    prompt: str
    sampling: Sampling
    """max_tokens 0: DEFAULT_MAX_TOKENS."""
    stream: bool


class CompletionService:
    def __init__(self, models: ModelService, tokenizer: Tokenizer, generator: Generator) -> None:
        self._models = models
        self._tokenizer = tokenizer
        self._generator = generator

    async def open(self, task: CompletionTask, principal: Principal, traceparent: str | None) -> Reply:
        """Raises ModelNotFound, InvalidRequest, ContextLengthExceeded."""
        model = self._models.get(task.model)
        prompt_ids = await self._tokenizer.raw(task.prompt)
        return self._generator.open(
            model,
            prompt_ids,
            task.sampling,
            default_max_tokens=DEFAULT_MAX_TOKENS,
            prompt_param="prompt",
            stream=task.stream,
            principal=principal,
            traceparent=traceparent,
        )
