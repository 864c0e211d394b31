"""What the use cases need from outside; adapters implement it. Checkable at run time: Litestar checks what it injects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from frontend.domain.conversations import Window
from frontend.domain.generation import GenerationDelta, GenerationRequest
from frontend.domain.limits import Account, Grant
from retrieval.types import Delta, Hit, Query, Range, StoreKey


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
class Embedder(Protocol):
    """An embedding model. Raises only errors of frontend.domain.errors."""

    async def embed(self, batch: Sequence[Sequence[int]], *, urgent: bool) -> NDArray[np.float32]:
        """(n, dim) float32, L2-normalised, one for each of the n texts, in their order.

        `batch`: token ids as the model reads them, control tokens included; not more texts than it takes at once.
        `urgent`: it goes before what is not, for a query that somebody waits for.
        Raises InvalidRequest for ids that it does not know or a text that is too long, Unavailable, Timeout.
        """


@runtime_checkable
class HotState(Protocol):
    """What is kept to be faster, and can be lost at any time. Nothing here raises, or takes longer than a deadline."""

    async def check(self) -> bool:
        """Whether it is there."""

    async def get_window(self, tenant: str, conversation_id: str, version: int) -> Window | None:
        """What was put there, if it is of this very version of the conversation."""

    async def put_window(self, tenant: str, window: Window) -> None: ...
    async def drop_window(self, tenant: str, conversation_id: str) -> None: ...


@runtime_checkable
class Limiter(Protocol):
    """Counts for all processes of the service together; without Valkey for this one alone. Takes no longer than a deadline."""

    async def acquire(self, account: Account, tokens: int, *, lease: bool) -> Grant:
        """One request, and `tokens`; with `lease` also one of the generations at the same time, until it is settled.

        All of it, from the key's limits and the tenant's, or nothing. Raises RateLimited.
        """

    async def settle(self, grant: Grant, tokens: int, *, refund_request: bool = False) -> None:
        """The generation has ended, having used `tokens`; what was taken beyond is given back. Twice is as good as once.

        `refund_request`: nothing of it counts, the service could not do it. Does not raise.
        """


@runtime_checkable
class Indexes(Protocol):
    """Projections of stores, in this process's memory; any of them can be gone at any time. Blocking: call them in a thread."""

    def applied(self, key: StoreKey) -> int:
        """0 for one that is not loaded."""

    def apply(self, key: StoreKey, delta: Delta) -> None:
        """Raises Gap if the index does not reach `delta.after`."""

    def search(self, key: StoreKey, query: Query, k: int, allowed: Sequence[Range] | None, *, head: int) -> list[Hit]:
        """Raises Gap if the index does not reach `head` (any more)."""

    def drop(self, key: StoreKey) -> None:
        """And all other generations of the store."""


@runtime_checkable
class Parser(Protocol):
    """Files to text, in a process of their own with bounds on time, memory and size."""

    async def parse(self, filename: str, path: Path) -> str:
        """Raises ParseFailed with a reason that its owner can act on."""
