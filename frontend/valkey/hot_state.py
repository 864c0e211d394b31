"""Hot state in Valkey: what it holds is also in SQL, so a dead or paused server makes the service slower, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from frontend.domain.conversations import Window
from frontend.valkey import codec
from frontend.valkey.breaker import Breaker
from frontend.valkey.pipe import Pipe, open_pipe

WINDOW_TTL_S = 3600


class ValkeyState:
    def __init__(self, pipe: Pipe, breaker: Breaker) -> None:
        self._pipe = pipe
        self._breaker = breaker

    async def check(self) -> bool:
        """Whether Valkey answers within the deadline."""
        return bool(await self._breaker.run(lambda: self._pipe.ask("PING"), False))

    async def get_window(self, tenant: str, conversation_id: str, version: int) -> Window | None:
        """The version is that of the conversation's row, read in the same request: a stale entry can never win."""
        key = window_key(tenant, conversation_id)
        window = codec.read_window(await self._breaker.run(lambda: self._pipe.ask("GET", key), None))
        return window if window is not None and window.conversation.version == version else None

    async def put_window(self, tenant: str, window: Window) -> None:
        data = codec.write_window(window)
        if data is None:
            await self.drop_window(tenant, window.conversation.id)
        else:
            key = window_key(tenant, window.conversation.id)
            await self._breaker.run(lambda: self._pipe.ask("SET", key, data, "EX", WINDOW_TTL_S), None)

    async def drop_window(self, tenant: str, conversation_id: str) -> None:
        key = window_key(tenant, conversation_id)
        await self._breaker.run(lambda: self._pipe.ask("DEL", key), None)


def window_key(tenant: str, conversation_id: str) -> str:
    """Ids of conversations have no colon: two tenants never share a key."""
    return f"hm2:window:{tenant}:{conversation_id}"


@asynccontextmanager
async def open_state(url: str, breaker: Breaker) -> AsyncIterator[ValkeyState]:
    """`url`: unix:///path or valkey://host:port/db. `breaker`: one for all that this process asks the server."""
    async with open_pipe(url) as pipe:
        yield ValkeyState(pipe, breaker)
