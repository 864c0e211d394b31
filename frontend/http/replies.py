"""The two ways a generation is answered: as one JSON body, or as a stream of server-sent events.

Both are ASGI applications, because both must hear the client leave: a handler's return value cannot, and a generator
that is blocked in `send` outlives its client until the garbage collector finds it. Here the work is a task that is
cancelled, and closed, in the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from frontend.http import errors
from frontend.observability import metrics

KEEPALIVE = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"
JSON_HEADERS = [(b"content-type", b"application/json")]
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]
CLIENT_LEFT = 499
"""nginx's status for a client that closed the connection; only the access log sees it."""

_encode = msgspec.json.Encoder().encode


def event(data: object) -> bytes:
    """One frame."""
    return b"data: " + _encode(data) + b"\n\n"


class JsonReply:
    """Awaits `work` and sends its result; aborts it when the client leaves."""

    def __init__(self, work: Callable[[], Awaitable[msgspec.Struct]]) -> None:
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with watched(scope, receive, self._work()) as task, generation():
            body = _encode(await task)
            headers = [*JSON_HEADERS, (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})


class EventStream:
    """Sends the frames of `frames`, then [DONE].

    The first frame is awaited before the 200, so that a request that fails early fails with its own status; not longer
    than `prime_timeout_s` though: after that the stream begins with a comment. Silence is filled with comments. A
    failure after the 200 becomes an error event, which the SDKs raise. Whatever happens, the stream has an end.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None], *, prime_timeout_s: float, keepalive_s: float) -> None:
        self._frames = frames
        self._prime_timeout_s = prime_timeout_s
        self._keepalive_s = keepalive_s
        self._state: dict[str, Any] = {}
        self._told = False
        """All but the last bytes: a client that leaves now has left nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._state = scope.setdefault("state", {})
        work = watched(scope, receive, self._run(send), lambda: self._told)
        async with work as task, generation(), contextlib.aclosing(self._frames):
            await task

    async def _run(self, send: Send) -> None:
        first = asyncio.ensure_future(anext(self._frames, None))
        try:
            await asyncio.wait([first], timeout=self._prime_timeout_s)
            if first.done():
                first.result()  # raises here, before the 200
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
            await self._send_frames(first, send)
        finally:
            first.cancel()
            await asyncio.wait([first])

    async def _send_frames(self, first: asyncio.Future[bytes | None], send: Send) -> None:
        one_at_a_time = asyncio.Lock()
        silent = False

        async def put(frame: bytes, more: bool = True) -> None:
            async with one_at_a_time:
                await send({"type": "http.response.body", "body": frame, "more_body": more})

        async def keep_alive() -> None:
            nonlocal silent
            while True:
                if silent:
                    await put(KEEPALIVE)
                silent = True
                await asyncio.sleep(self._keepalive_s)

        silent = not first.done()
        keeper = asyncio.create_task(keep_alive())
        try:
            if (frame := await first) is not None:
                await put(frame)
                async for frame in self._frames:
                    silent = False
                    await put(frame)
        except Exception as exc:
            error = errors.to_service_error(exc)
            self._state["error_code"] = error.code
            await put(event(errors.envelope(error)))
        finally:
            keeper.cancel()
        self._told = True
        await put(DONE, more=False)


@contextlib.asynccontextmanager
async def generation() -> AsyncGenerator[None, None]:
    with metrics.GENERATIONS.track_inprogress():
        yield


@contextlib.asynccontextmanager
async def watched(
    scope: Scope, receive: Receive, work: Awaitable[Any], told: Callable[[], bool] = lambda: False
) -> AsyncGenerator[asyncio.Future[Any], None]:
    """Runs `work` as a task that ends when the client disconnects; the body of the `with` ends quietly then.

    `told`: whether the client has everything already, and may go.
    """
    task = asyncio.ensure_future(work)
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        if not told():
            gone = True
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield task
    except asyncio.CancelledError:
        if not gone:
            raise
        state: dict[str, Any] = scope.setdefault("state", {})
        state["status"] = CLIENT_LEFT
    finally:
        watcher.cancel()
        task.cancel()
        await asyncio.wait([watcher, task])
