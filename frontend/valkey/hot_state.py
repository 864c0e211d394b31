"""The connection to Valkey. Every command has a deadline; a dead or paused server degrades, and never blocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import valkey.asyncio
from valkey.exceptions import ValkeyError


class ValkeyState:
    def __init__(self, client: valkey.asyncio.Valkey, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def check(self) -> bool:
        """Whether Valkey answers within the deadline."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return bool(await self._client.ping())
        except (ValkeyError, OSError, TimeoutError):
            return False


@asynccontextmanager
async def open_state(url: str, timeout_s: float) -> AsyncIterator[ValkeyState]:
    """`url`: unix:///path or valkey://host:port/db."""
    client = valkey.asyncio.Valkey.from_url(url)
    try:
        yield ValkeyState(client, timeout_s)
    finally:
        await client.aclose()
