"""What one generation uses: counted while it runs, told to the metrics and to its request's record once, when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from frontend.domain.errors import Internal, ServiceError, Timeout, Unavailable
from frontend.domain.generation import GenerationDelta
from frontend.domain.record import Record
from frontend.observability import metrics
from frontend.services.generate import Reply


class Tally:
    def __init__(self, record: Record, clock: Callable[[], float] = time.perf_counter) -> None:
        """`record`: of the request that it belongs to."""
        self.record = record
        self.open_choices = 0
        self.prompt_tokens = 0
        self.answer_tokens = 0
        self._cached_tokens = 0
        self._last_token_at: float | None = None
        self._clock = clock
        self._error: Exception | None = None

    @contextmanager
    def of(self, reply: Reply) -> Iterator[None]:
        """While it runs. Leaving early, without an error, is to cancel it."""
        self.prompt_tokens, self.open_choices = reply.prompt_tokens, reply.n
        try:
            yield
        except Exception as exc:
            self.fail(exc)
            raise
        finally:
            self._tell(reply)

    def hear(self, delta: GenerationDelta) -> int:
        """Tokens that it gained."""
        tokens = 0
        for choice in delta.choices:
            tokens += choice.num_tokens
            if choice.finish_reason is not None:
                self.open_choices -= 1
        if delta.num_cached_tokens > self._cached_tokens:
            self._cached_tokens = delta.num_cached_tokens
        if tokens:
            self._last_token_at = self._clock()
            if not self.answer_tokens:
                self.record.begun(self._last_token_at)
            self.answer_tokens += tokens
        return tokens

    def fail(self, error: Exception) -> None:
        self._error = error

    @property
    def came_to_nothing(self) -> bool:
        return self._error is not None and not self.answer_tokens

    @property
    def is_ours(self) -> bool:
        """What it failed of."""
        return self._error is not None and is_ours(self._error)

    def _tell(self, reply: Reply) -> None:
        self.record.used(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self.answer_tokens,
            choices=reply.n,
            last_token_at=self._last_token_at,
        )
        if not self.came_to_nothing:
            metrics.READ.inc(self.prompt_tokens)
            metrics.CACHED.inc(self._cached_tokens)
            metrics.WRITTEN.inc(self.answer_tokens)
        elif not self.is_ours:
            return  # the engine refused what the client asked for: it never began
        if self._error is not None:
            metrics.FAILED.inc()
        elif self.open_choices > 0:
            metrics.CANCELLED.inc()
        else:
            metrics.COMPLETED.inc()


def is_ours(error: Exception) -> bool:
    """Not the client's doing."""
    return isinstance(error, Unavailable | Timeout | Internal) or not isinstance(error, ServiceError)
