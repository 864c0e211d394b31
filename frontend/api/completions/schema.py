"""The bodies of /v1/completions, in and out, as OpenAI specifies them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from frontend.api.parameters import FinishReason, SamplingParameters, UsageBody


class CreateCompletion(SamplingParameters, frozen=True, kw_only=True):
    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    """A text, token ids of this model, or a list of either."""
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    # Taken only with the value that asks for nothing; refused otherwise.
    suffix: str | None = None
    best_of: Any = None


class Logprobs(msgspec.Struct, frozen=True):
    """`text_offset` counts characters of the text. An echoed prompt's first token has no probabilities: 0, for the
    specification knows no null here.
    """

    text_offset: list[int]
    token_logprobs: list[float]
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


class Choice(msgspec.Struct, frozen=True):
    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: FinishReason | None
    """null on all chunks of a stream but a choice's last, as OpenAI's own service has it."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole completion, or one chunk of a stream: OpenAI gives both the same shape."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageBody | msgspec.UnsetType | None = msgspec.UNSET
