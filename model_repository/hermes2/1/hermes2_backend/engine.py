"""The engine as the backend sees it: five calls, whatever generates the tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from .generation import Delta, Generation

STREAMS_PER_TOKEN = 8
"""With so many open, one that begins gets two tokens at a time, with twice as many three: the sender would hold them back
anyway."""
MOST_TOKENS_AT_ONCE = 8


class Engine(Protocol):
    """Lives on one event loop; every call is made there."""

    @property
    def max_n(self) -> int:
        """The most sequences that one request may ask for."""

    def generate(self, generation: Generation, request_id: str) -> AsyncGenerator[Delta, None]:
        """Yields deltas until one is `finished`; a non-streaming generation yields that one only.

        Closing the generator, or cancelling the task that runs it, aborts the generation, queued or running.
        Raises BackendError.
        """

    async def ping(self) -> None:
        """Returns once the engine's own loop has answered: a hung engine is a ping that does not return.

        Raises Internal if the engine is dead.
        """

    def metrics(self) -> str:
        """The engine's metrics, Prometheus text format."""

    async def warm_up(self) -> None:
        """Runs what would otherwise be compiled, allocated or imported during the first requests."""

    def close(self) -> None:
        """Ends the engine's processes."""


def tokens_at_once(open_streams: int) -> int:
    """That a generation which begins beside so many others gets with each delta but its first and its last."""
    return min(1 + open_streams // STREAMS_PER_TOKEN, MOST_TOKENS_AT_ONCE)
