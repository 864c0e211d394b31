"""What becomes known of one request while it is answered; knows neither who learns it nor who tells it."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct):
    """Written by the gate as it learns it, read when the request has ended. None: it does not apply, or never came to it.

    Times are seconds of time.perf_counter.
    """

    model: str | None = None
    """That answers; not the alias it was asked for by."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    """Of the prompt, those that the engine had read before."""
    completion_tokens: int | None = None
    """Of all choices."""
    choices: int = 0
    queue_s: float | None = None
    """The longest wait for a place in the engine."""
    first_token_at: float | None = None
    last_token_at: float | None = None

    def waited(self, wait_s: float) -> None:
        self.queue_s = max(self.queue_s or 0.0, wait_s)

    def begun(self, at: float) -> None:
        """The first tokens of a generation came."""
        if self.first_token_at is None:
            self.first_token_at = at

    def used(
        self,
        *,
        prompt_tokens: int,
        cached_tokens: int = 0,
        completion_tokens: int = 0,
        choices: int = 1,
        last_token_at: float | None = None,
    ) -> None:
        """By a generation that has ended; those of several add up."""
        self.prompt_tokens = (self.prompt_tokens or 0) + prompt_tokens
        self.cached_tokens = (self.cached_tokens or 0) + cached_tokens
        self.completion_tokens = (self.completion_tokens or 0) + completion_tokens
        self.choices += choices
        self.last_token_at = last_token_at or self.last_token_at

    def read(self, prompt_tokens: int) -> None:
        """By a model that only reads."""
        self.prompt_tokens = (self.prompt_tokens or 0) + prompt_tokens

    @property
    def inter_token_s(self) -> float | None:
        """Between two tokens of a choice, on average. None if there are no two."""
        if self.first_token_at is None or self.last_token_at is None or not self.choices:
            return None
        steps = (self.completion_tokens or 0) / self.choices - 1
        return (self.last_token_at - self.first_token_at) / steps if steps > 0 else None
