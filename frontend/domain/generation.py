"""One generation: what is asked of the engine, and the pieces it comes back in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from frontend.domain.citations import FileCitation
from frontend.domain.tools import ToolCallDelta, ToolChoice

FinishReason = Literal["stop", "length", "tool_calls"]


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What guided decoding holds a reply to. With both: calls, or JSON of the schema."""

    tools: ToolChoice | None = None
    """Calls are well-formed, and only of tools that may be called."""
    json_schema: Mapping[str, Any] | None = None
    """A choice is one JSON value of this schema, which has passed frontend/domain/json_schema.py."""

    @property
    def leaves_text_free(self) -> bool:
        """A choice may be, and end, as the model likes."""
        calls = self.tools
        return self.json_schema is None and (calls is None or (calls.several and not calls.required))


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are chosen; names and meanings are vLLM's, defaults are OpenAI's."""

    max_tokens: int | None = None
    """None until it is known how much the window leaves."""
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    logprobs: int | None = None
    """Candidates per token beside the sampled one; 0: the sampled one only; None: no log probabilities."""
    prompt_logprobs: int | None = None
    """The same for the tokens of the prompt."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    prompt_ids: Sequence[int]
    sampling: Sampling
    stream: bool
    constraint: Constraint | None = None
    cache_salt: str
    """Prefix-cache blocks are shared only between requests of one salt; set by the service, never by a client."""
    traceparent: str | None = None


class Candidate(msgspec.Struct, frozen=True):
    """One token that could have stood at a position, with its natural-log probability; nan where none was computed."""

    token_id: int
    logprob: float


class TokenLogprobs(msgspec.Struct, frozen=True):
    """One generated position. `sampled` is the token that was taken; `top` holds the most likely, best first."""

    sampled: Candidate
    top: Sequence[Candidate]


class ChoiceDelta(msgspec.Struct, frozen=True):
    """What one of the n choices gained."""

    index: int
    text: str
    num_tokens: int
    logprobs: Sequence[TokenLogprobs] | None
    finish_reason: FinishReason | None
    calls: Sequence[ToolCallDelta] = ()
    citations: Sequence[FileCitation] = ()
    """Of all its text, with the delta that ends it."""


class GenerationDelta(msgspec.Struct, frozen=True):
    """What a generation gained: only choices that gained something, in ascending index."""

    choices: Sequence[ChoiceDelta]
    num_cached_tokens: int
    prompt_logprobs: Sequence[TokenLogprobs] | None = None
    """Per token of the prompt, nan for the first, which stands after nothing; once, and only when asked for."""


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
