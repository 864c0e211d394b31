"""frontend/http/replies: streams and whole replies as ASGI applications, and what they do when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import pytest

from frontend.domain.errors import Unavailable
from frontend.http.replies import DONE, KEEPALIVE, EventStream, JsonReply


class Body(msgspec.Struct):
    answer: str


class Client:
    """The other end of an ASGI application: records what is sent, leaves when told."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.left = asyncio.Event()
        self.got = asyncio.Event()
        self.scope: Any = {"type": "http", "state": {}}

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        self.got.set()

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.sent if m["type"] == "http.response.start"), None)

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")

    @property
    def ended(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    async def call(self, app: Callable[[Any, Any, Any], Any]) -> None:
        async with asyncio.timeout(5):
            await app(self.scope, self.receive, self.send)


class Frames:
    """A generator of frames that knows whether it was closed. `wait` holds it before the frame of that number."""

    def __init__(self, count: int, *, wait: int | None = None, fail: int | None = None) -> None:
        self.closed = False
        self.release = asyncio.Event()
        self._count, self._wait, self._fail = count, wait, fail

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(self._count):
                if number == self._wait:
                    await self.release.wait()
                if number == self._fail:
                    raise Unavailable("gone")
                yield f"data: {number}\n\n".encode()
        finally:
            self.closed = True


def stream(frames: Frames, prime_timeout_s: float = 5, keepalive_s: float = 5) -> EventStream:
    return EventStream(frames(), prime_timeout_s=prime_timeout_s, keepalive_s=keepalive_s)


class TestEventStream:
    async def test_frames_and_an_end(self) -> None:
        """Every frame as it came, then [DONE], then the end of the body."""
        client, frames = Client(), Frames(3)
        await client.call(stream(frames))
        assert client.status == 200
        assert client.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n" + DONE
        assert client.ended
        assert frames.closed

    async def test_a_failure_before_the_first_frame_raises_before_the_200(self) -> None:
        """Nothing is sent, so that the error's own status can be."""
        client, frames = Client(), Frames(3, fail=0)
        with pytest.raises(Unavailable):
            await client.call(stream(frames))
        assert client.sent == []

    async def test_a_failure_later_is_an_event(self) -> None:
        """The envelope as an event, and still an end."""
        client = Client()
        await client.call(stream(Frames(3, fail=1)))
        assert client.status == 200
        assert b'"code":"engine_unavailable"' in client.body
        assert client.body.endswith(DONE)
        assert client.ended

    async def test_a_slow_first_frame_does_not_hold_the_200_for_ever(self) -> None:
        """After prime_timeout_s the stream begins with a comment."""
        client, frames = Client(), Frames(1, wait=0)
        call = asyncio.create_task(client.call(stream(frames, prime_timeout_s=0.01)))
        await client.got.wait()
        while KEEPALIVE not in client.body:
            await asyncio.sleep(0)
        assert client.status == 200
        frames.release.set()
        await call
        assert client.body == KEEPALIVE + b"data: 0\n\n" + DONE

    async def test_silence_is_filled_with_comments(self) -> None:
        """Proxies cut a connection on which nothing comes."""
        client, frames = Client(), Frames(2, wait=1)
        call = asyncio.create_task(client.call(stream(frames, keepalive_s=0.01)))
        while client.body.count(KEEPALIVE) < 2:
            await asyncio.sleep(0.001)
        frames.release.set()
        await call
        assert client.body.replace(KEEPALIVE, b"") == b"data: 0\n\ndata: 1\n\n" + DONE

    @pytest.mark.parametrize("wait", [0, 1])
    async def test_a_client_that_leaves_closes_the_generator(self, wait: int) -> None:
        """At once, before the first frame and after; the access log sees 499."""
        client, frames = Client(), Frames(2, wait=wait)
        call = asyncio.create_task(client.call(stream(frames)))
        for _ in range(20):
            await asyncio.sleep(0)
        client.left.set()
        await call
        assert frames.closed
        assert client.scope["state"]["status"] == 499

    async def test_a_cancelled_server_is_not_mistaken_for_a_client_that_left(self) -> None:
        """Cancellation from outside goes on, and closes the generator too."""
        client, frames = Client(), Frames(2, wait=1)
        call = asyncio.create_task(client.call(stream(frames)))
        await client.got.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert frames.closed
        assert "status" not in client.scope["state"]


class TestJsonReply:
    async def test_the_result_is_sent(self) -> None:
        """One body with its length."""

        async def work() -> Body:
            return Body("yes")

        client = Client()
        await client.call(JsonReply(work))
        assert client.body == b'{"answer":"yes"}'
        assert dict(client.sent[0]["headers"])[b"content-length"] == b"16"

    async def test_a_client_that_leaves_ends_the_work(self) -> None:
        """The work is cancelled, and nothing is sent."""
        ended = asyncio.Event()

        async def work() -> Body:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        client = Client()
        call = asyncio.create_task(client.call(JsonReply(work)))
        await asyncio.sleep(0)
        client.left.set()
        await call
        assert ended.is_set()
        assert client.sent == []
        assert client.scope["state"]["status"] == 499

    async def test_a_failure_is_raised_before_anything_is_sent(self) -> None:
        """So that it gets its own status."""

        async def work() -> Body:
            raise Unavailable("gone")

        client = Client()
        with pytest.raises(Unavailable):
            await client.call(JsonReply(work))
        assert client.sent == []
