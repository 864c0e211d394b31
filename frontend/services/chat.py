"""One chat turn: messages in, a running reply out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from frontend.domain.errors import InvalidRequest
from frontend.domain.generation import Sampling
from frontend.domain.messages import Message
from frontend.domain.principal import Principal
from frontend.services.generate import Generator, Reply
from frontend.services.models import ModelService
from frontend.services.tokenize import Tokenizer


class ChatTurn(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    messages: Sequence[Message]
    sampling: Sampling
    """max_tokens 0: as many as the window leaves."""
    stream: bool


class ChatService:
    def __init__(self, models: ModelService, tokenizer: Tokenizer, generator: Generator, max_messages: int) -> None:
        self._models = models
        self._tokenizer = tokenizer
        self._generator = generator
        self._max_messages = max_messages

    async def open(self, turn: ChatTurn, principal: Principal, traceparent: str | None) -> Reply:
        """Raises ModelNotFound, InvalidRequest, ContextLengthExceeded."""
        model = self._models.get(turn.model)
        if len(turn.messages) > self._max_messages:
            raise InvalidRequest(f"At most {self._max_messages} messages are taken.", param="messages")
        prompt_ids = await self._tokenizer.chat(turn.messages)
        return self._generator.open(
            model,
            prompt_ids,
            turn.sampling,
            default_max_tokens=None,
            prompt_param="messages",
            stream=turn.stream,
            principal=principal,
            traceparent=traceparent,
        )
