"""From a prompt's ids to a running generation: fits it into the window and hands it to the engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import msgspec

from frontend.domain.errors import ContextLengthExceeded, InvalidRequest
from frontend.domain.generation import GenerationDelta, GenerationRequest, Sampling
from frontend.domain.ports import Engine
from frontend.domain.principal import Principal
from frontend.services.models import Model


class Reply(msgspec.Struct, frozen=True):
    """A generation that has been accepted; it starts when `deltas` is first read, and ends when that is closed."""

    model: Model
    prompt_tokens: int
    n: int
    deltas: AsyncGenerator[GenerationDelta, None]


class Generator:
    def __init__(self, engine: Engine, vocab_size: int, end_of_turn: int) -> None:
        self._engine = engine
        self._vocab_size = vocab_size
        self._end_of_turn = end_of_turn

    def open(
        self,
        model: Model,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        *,
        default_max_tokens: int | None,
        prompt_param: str,
        stream: bool,
        principal: Principal,
        traceparent: str | None,
    ) -> Reply:
        """`sampling.max_tokens` 0 means: not said; then `default_max_tokens`, or all that the window leaves.

        Raises ContextLengthExceeded, InvalidRequest.
        """
        prompt_tokens, window = len(prompt_ids), model.max_model_len
        asked = sampling.max_tokens or default_max_tokens or 1
        if prompt_tokens + asked > window and not (sampling.max_tokens == 0 and prompt_tokens < window):
            raise ContextLengthExceeded(
                f"This model's maximum context length is {window} tokens. However, you requested {prompt_tokens + asked} tokens"
                f" ({prompt_tokens} in the {prompt_param}, {asked} in the completion). Please reduce the length of either.",
                param=prompt_param,
            )
        max_tokens = sampling.max_tokens or min(default_max_tokens or window, window - prompt_tokens)
        if (sampling.min_tokens or 0) > max_tokens:
            raise InvalidRequest(
                f"min_tokens must not be greater than the {max_tokens} tokens of the answer.", param="min_tokens"
            )
        for token_id in sampling.logit_bias or ():
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"{token_id} is not a token of this model (0 to {self._vocab_size - 1}).", param="logit_bias"
                )
        request = GenerationRequest(
            prompt_ids=prompt_ids,
            sampling=msgspec.structs.replace(sampling, max_tokens=max_tokens, stop_token_ids=[self._end_of_turn]),
            stream=stream,
            cache_salt=principal.tenant,
            traceparent=traceparent,
        )
        return Reply(model, prompt_tokens, sampling.n, self._engine.generate(request))
