"""What the use cases need from outside; adapters implement it. Checkable at run time: Litestar checks what it injects."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from frontend.domain.generation import GenerationDelta, GenerationRequest


@runtime_checkable
class Engine(Protocol):
    """A language model. Raises only errors of frontend.domain.errors."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        """Yields until every choice has its finish_reason; with stream=False, once.

        Closing the generator aborts the generation, queued or running.
        """

    async def check(self) -> None:
        """Returns if the engine's own loop answers. Raises Unavailable."""

    async def metrics(self) -> str:
        """The engine's metrics, Prometheus text format. Raises Unavailable."""


@runtime_checkable
class HotState(Protocol):
    """Valkey, as far as health is concerned."""

    async def check(self) -> bool: ...
