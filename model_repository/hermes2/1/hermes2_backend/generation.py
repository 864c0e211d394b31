"""The nouns between wire, engine and sender: one generation asked for, and the pieces it comes back in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Generation:
    """One request for `n` sequences. Exactly one of `prompt_ids` and `prompt_text` is set."""

    prompt_ids: Sequence[int] | None
    prompt_text: str | None
    sampling: Mapping[str, object]
    """Names of vLLM's SamplingParams, values of their types (see sampling.parse)."""
    stream: bool
    """True: deltas as they come. False: everything in one response."""
    prepend_input: bool
    """The text of the prompt stands before the reply (NVIDIA's default for non-streaming requests)."""
    returns: frozenset[str]
    """The optional outputs that were asked for, by output name."""
    cache_salt: str | None = None
    """Requests share prefix-cache blocks only with requests of the same salt."""
    traceparent: str | None = None
    """W3C trace context, handed to vLLM's tracing."""

    @property
    def n(self) -> int:
        value = self.sampling.get("n", 1)
        assert isinstance(value, int)
        return value


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One candidate of one position. `rank` is 1 for the most likely token of the position."""

    token_id: int
    logprob: float
    rank: int | None
    text: str | None


@dataclass(slots=True)
class SequenceDelta:
    """What one of the n sequences gained since the last delta."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[list[TokenLogprob]] | None = None
    """One entry per token of `token_ids`, the sampled token first; None when not asked for."""
    cumulative_logprob: float | None = None
    finish_reason: str | None = None
    """stop | length | abort | error; None while the sequence goes on."""


@dataclass(slots=True)
class Delta:
    """What a generation gained: always n sequences, in order, most of them often empty."""

    sequences: list[SequenceDelta]
    num_input_tokens: int
    num_cached_tokens: int
    finished: bool
    prompt_logprobs: list[list[TokenLogprob]] | None = None
    """One entry per token of the prompt, the first one empty; once, with the first delta, and only when asked for."""

    def absorb(self, later: Delta) -> None:
        """Appends `later`, so that one response carries both."""
        for mine, other in zip(self.sequences, later.sequences, strict=True):
            mine.text += other.text
            mine.token_ids += other.token_ids
            if other.logprobs is not None:
                mine.logprobs = (mine.logprobs or []) + other.logprobs
            if other.cumulative_logprob is not None:
                mine.cumulative_logprob = other.cumulative_logprob
            mine.finish_reason = other.finish_reason or mine.finish_reason
        self.num_cached_tokens = max(self.num_cached_tokens, later.num_cached_tokens)
        self.prompt_logprobs = self.prompt_logprobs or later.prompt_logprobs
        self.finished = later.finished
