"""One JSON body that is written piece by piece, for what is too large to be held, or encoded, at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from litestar.types import Receive, Scope, Send

from frontend.http.replies import JSON_HEADERS, watched


class JsonStream:
    """Sends `pieces`, which are one JSON text together; stops when the client leaves.

    A failure after the first piece breaks the connection off: what has come is no JSON, so that nobody takes it for whole.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with watched(scope, receive, self._run(send)) as task, contextlib.aclosing(self._pieces):
            await task

    async def _run(self, send: Send) -> None:
        piece = await anext(self._pieces)  # raises before the 200
        await send({"type": "http.response.start", "status": 200, "headers": JSON_HEADERS})
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
