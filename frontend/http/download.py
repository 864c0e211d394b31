"""Bytes of a user's, sent piece by piece as something to be saved: no browser shows them, or runs what is in them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from urllib.parse import quote

from litestar.types import Receive, Scope, Send

from frontend.http.replies import watched


class Download:
    """Sends `pieces`, `size_bytes` in all; stops when the client leaves. A failure after the first piece breaks the
    connection off before the announced size is reached."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], size_bytes: int, filename: str) -> None:
        self._pieces = pieces
        self._headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(size_bytes).encode()),
            (b"content-disposition", disposition(filename)),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with watched(scope, receive, self._run(send)) as task, contextlib.aclosing(self._pieces):
            await task

    async def _run(self, send: Send) -> None:
        piece = await anext(self._pieces, b"")  # raises before the 200
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def disposition(filename: str) -> bytes:
    """RFC 6266 with the name in RFC 8187's form alone: nothing in it can end the header or the value."""
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}".encode()
