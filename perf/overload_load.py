"""Clients of a service that has too much to do: each asks, waits as long as it is told to where it is refused, and asks again.

HTTP by hand, a connection for each request: what the clients compute on the same machine is taken from the service.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

PROMPT_WORDS, ANSWER_TOKENS = 85, 64
"""With the turn's frame about 100 tokens: each word is one."""
WORDS = (
    " engine",
    " river",
    " morning",
    " garden",
    " bridge",
    " winter",
    " letter",
    " station",
    " city",
    " market",
    " road",
)
LONGEST_RETRY_S = 60.0
"""The SDKs believe a Retry-After up to that."""
REFUSED = (429, 503)


class Done(msgspec.Struct, frozen=True):
    """A request that was let in. Times are of time.monotonic()."""

    sent: float
    first: float
    """Its first token was there."""
    ended: float
    tokens: int

    @property
    def ttft_s(self) -> float:
        return self.first - self.sent

    def tokens_in(self, begin: float, end: float) -> float:
        """Those of its answer that fall into a time, which came at an even pace."""
        overlap = min(self.ended, end) - max(self.first, begin)
        return self.tokens * max(overlap, 0) / max(self.ended - self.first, 1e-6)


class Refusal(msgspec.Struct, frozen=True):
    sent: float
    ended: float
    retry_after_s: float


class Heard(msgspec.Struct):
    """What a set of clients was answered."""

    done: list[Done] = msgspec.field(default_factory=list)
    refused: list[Refusal] = msgspec.field(default_factory=list)
    failed: list[str] = msgspec.field(default_factory=list)


class Load:
    """Chats of one tenant."""

    def __init__(self, url: str, key: str, seed: int) -> None:
        self.heard = Heard()
        self._random = random.Random(seed)  # noqa: S311  # the same prompts each time
        self._key = key
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port

    async def closed(self, clients: int, until: float) -> None:
        """So many, each with one request at a time, until that time; what runs then is heard to its end."""
        await asyncio.gather(*(self._client(until) for _ in range(clients)))

    async def open(self, per_s: float, until: float) -> None:
        """A request each 1 / `per_s` seconds, whatever becomes of those before it."""
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < until:
                group.create_task(self._until_let_in(until))
                await asyncio.sleep(1 / per_s)

    async def _client(self, until: float) -> None:
        while time.monotonic() < until:
            await self._until_let_in(until)

    async def _until_let_in(self, until: float) -> None:
        request = self._request()
        while (wait_s := await self._ask(request)) is not None:
            left_s = until - time.monotonic()
            await asyncio.sleep(max(0, min(wait_s, left_s)))
            if wait_s >= left_s:
                return

    def _request(self) -> bytes:
        words = "".join(self._random.choice(WORDS) for _ in range(PROMPT_WORDS))
        body = {
            "model": "hermes-2",
            "messages": [{"role": "user", "content": f"Go on with:{words}"}],
            "max_tokens": ANSWER_TOKENS,
            "min_tokens": ANSWER_TOKENS,
            "stream": True,
        }
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host}\r\nauthorization: Bearer {self._key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        return head.encode() + content

    async def _ask(self, request: bytes) -> float | None:
        """How long to wait before asking again; None: it was let in, or has failed for another reason."""
        sent = time.monotonic()
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(head.split(" ", 2)[1])
            if status in REFUSED:
                wait_s = min(float(head.split("retry-after-ms: ")[1].split("\r")[0]) / 1e3, LONGEST_RETRY_S)
                self.heard.refused.append(Refusal(sent, time.monotonic(), wait_s))
                return wait_s
            await self._hear(reader, sent, status)
            return None
        finally:
            writer.close()

    async def _hear(self, reader: asyncio.StreamReader, sent: float, status: int) -> None:
        first, last = 0.0, b""
        while piece := await reader.read(2**16):
            if not first and b'"content":"' in (last + piece).replace(b'"content":""', b""):
                first = time.monotonic()
            last = (last + piece)[-200:]
        if status == 200 and first and b"[DONE]" in last:
            self.heard.done.append(Done(sent, first, time.monotonic(), ANSWER_TOKENS))
        else:
            self.heard.failed.append(f"{status} {last.decode()}")


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that is not below `share` of them; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
