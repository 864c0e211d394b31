"""From a prompt's ids to a running generation: fits it into the window and hands it to the engine."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, Collection, Sequence

import msgspec

from frontend.domain.errors import ContextLengthExceeded, InvalidRequest
from frontend.domain.generation import Constraint, GenerationDelta, GenerationRequest, Sampling
from frontend.domain.ports import Engine
from frontend.domain.principal import Principal
from frontend.domain.responses import Degraded
from frontend.services.models import Model


class Reply(msgspec.Struct, frozen=True):
    """A generation that has been accepted; it starts when `deltas` is first read, and ends when that is closed."""

    model: Model
    prompt_tokens: int
    n: int
    most_tokens: int
    """That all its choices together may have."""
    deltas: AsyncGenerator[GenerationDelta, None]
    degraded: Sequence[Degraded] = ()
    """What its prompt had to do without."""


class Generator:
    def __init__(self, engine: Engine, vocab_size: int, end_of_turn: int, pepper: bytes) -> None:
        """`pepper`: a secret of the service, from which each tenant's part of the prefix cache gets its name."""
        self._engine = engine
        self._pepper = pepper
        self._vocab_size = vocab_size
        self._end_of_turn = end_of_turn

    def open(
        self,
        model: Model,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        default_max_tokens: int | None,
        prompt_param: str,
        stream: bool,
        principal: Principal,
        traceparent: str | None,
    ) -> Reply:
        """Without `sampling.max_tokens` the answer may have `default_max_tokens`, or all that the window leaves.

        Raises ContextLengthExceeded, InvalidRequest.
        """
        max_tokens = room(len(prompt_ids), model.max_model_len, sampling.max_tokens, default_max_tokens, prompt_param)
        if (sampling.min_tokens or 0) > max_tokens:
            raise InvalidRequest(
                f"min_tokens must not be greater than the {max_tokens} tokens of the answer.", param="min_tokens"
            )
        self._check_tokens(sampling.logit_bias or (), "logit_bias")
        self._check_tokens(sampling.stop_token_ids, "stop_token_ids")
        self._check_tokens(prompt_ids, prompt_param)
        check_end(sampling, constraint)
        stops = [] if sampling.ignore_eos else [self._end_of_turn]
        request = GenerationRequest(
            prompt_ids=prompt_ids,
            sampling=msgspec.structs.replace(
                sampling, max_tokens=max_tokens, stop_token_ids=[*stops, *sampling.stop_token_ids]
            ),
            stream=stream,
            constraint=constraint,
            cache_salt=cache_salt(self._pepper, principal.tenant),
            traceparent=traceparent,
        )
        most_tokens = max_tokens * sampling.n
        return Reply(model, len(prompt_ids), sampling.n, most_tokens, self._engine.generate(request))

    def _check_tokens(self, token_ids: Collection[int], param: str) -> None:
        for token_id in (min(token_ids, default=0), max(token_ids, default=0)):
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"{token_id} is not a token of this model (0 to {self._vocab_size - 1}).", param=param
                )


def cache_salt(pepper: bytes, tenant: str) -> str:
    """Nobody can guess another's, or learn from it who it is."""
    return hmac.new(pepper, f"prefix-cache:{tenant}".encode(), "sha256").hexdigest()


def room(prompt_tokens: int, window: int, max_tokens: int | None, default_max_tokens: int | None, param: str) -> int:
    """How many tokens the answer may have. Raises InvalidRequest, ContextLengthExceeded."""
    if prompt_tokens == 0:
        raise InvalidRequest("The prompt must not be empty.", param=param)
    asked = max_tokens or default_max_tokens or 1
    if prompt_tokens + asked > window and not (max_tokens is None and prompt_tokens < window):
        raise ContextLengthExceeded(
            f"This model's maximum context length is {window} tokens. However, you requested {prompt_tokens + asked} tokens"
            f" ({prompt_tokens} in the {param}, {asked} in the completion). Please reduce the length of either.",
            param=param,
        )
    return max_tokens or min(default_max_tokens or window, window - prompt_tokens)


def check_end(sampling: Sampling, constraint: Constraint | None) -> None:
    """Raises InvalidRequest if an answer must end where the sampling says that it must not."""
    if constraint is not None and (sampling.ignore_eos or sampling.min_tokens) and not constraint.leaves_text_free:
        raise InvalidRequest(
            "'min_tokens' and 'ignore_eos' go beyond the end that response_format or tool_choice set.",
            param="ignore_eos" if sampling.ignore_eos else "min_tokens",
        )
