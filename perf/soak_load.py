"""What a soak asks for, without an end: chats, turns of conversations, embeddings.

A conversation takes a random number of turns, then it is deleted and another one begins: prompts are as long at the end as at
the beginning, and as many conversations are kept, so that what grows is the service.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx

from perf import open_loop
from perf.headline import ANSWER_TOKENS, PROMPT_WORDS
from perf.overload_load import WORDS

Kind = Literal["chat", "turn", "embedding"]
PATTERN: Sequence[Kind] = (
    *("chat", "chat", "turn", "chat", "chat"),
    *("embedding", "turn", "chat", "chat", "turn"),
)
"""Over and over."""
TURN_WORDS = 12
TURNS = (6, 18)
"""Of a conversation: between these."""
TEXTS, TEXT_WORDS = 4, 40
"""Of one request for embeddings."""
TIMEOUT_S = 60.0


def kinds(count: int) -> list[Kind]:
    return [PATTERN[number % len(PATTERN)] for number in range(count)]


class Load:
    """Of one tenant."""

    def __init__(self, chats: open_loop.Client, client: httpx.AsyncClient) -> None:
        self._chats = chats
        self._client = client
        self._random = random.Random(0)  # noqa: S311  # the same load each time
        more = {"model": "hermes-2", "store": True}
        self._bodies = open_loop.chats(10**9, words=PROMPT_WORDS, answer_tokens=ANSWER_TOKENS, seed=0, more=more)
        self._idle: deque[tuple[str, int]] = deque()
        """Conversations in which no turn is running, and the turns that each has before it."""

    async def ask(self, kind: Kind, due: float) -> open_loop.Outcome:
        """`due`: in time of time.perf_counter()."""
        if kind == "chat":
            return await self._chats.ask(next(self._bodies), due)
        try:
            error = await (self._turn() if kind == "turn" else self._embed())
        except httpx.HTTPError as exc:
            error = repr(exc)
        now = time.perf_counter() - due
        return open_loop.Outcome(now, now, 0, 0, error)

    async def _turn(self) -> str | None:
        """What went wrong; None: nothing. The first one makes its conversation, the last one deletes it."""
        if not self._idle:
            made = await self._client.post("/v1/conversations", json={})
            if made.status_code != 200:
                return f"status {made.status_code}"
            self._idle.append((made.json()["id"], self._random.randint(*TURNS)))
        conversation, turns = self._idle.popleft()
        body: dict[str, Any] = {
            "model": "hermes-2",
            "conversation": conversation,
            "input": "Tell me of:" + self._words(TURN_WORDS),
            "max_output_tokens": ANSWER_TOKENS,
            "stream": True,
        }
        reply = await self._client.post("/v1/responses", json=body)
        if reply.status_code != 200:
            return f"status {reply.status_code}"
        if "event: response.completed" not in reply.text and "event: response.incomplete" not in reply.text:
            return "the response has failed"
        if turns > 1:
            self._idle.append((conversation, turns - 1))
            return None
        deleted = await self._client.delete(f"/v1/conversations/{conversation}")
        return None if deleted.status_code == 200 else f"status {deleted.status_code}"

    async def _embed(self) -> str | None:
        texts = [self._words(TEXT_WORDS) for _ in range(TEXTS)]
        reply = await self._client.post("/v1/embeddings", json={"model": "hermes-2-embedder", "input": texts})
        return None if reply.status_code == 200 else f"status {reply.status_code}"

    def _words(self, count: int) -> str:
        return "".join(self._random.choice(WORDS) for _ in range(count))


@asynccontextmanager
async def opened(url: str, key: str) -> AsyncIterator[Load]:
    """`url`: without /v1."""
    chats = open_loop.Client(url, key)
    headers = {"authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S) as client:
            yield Load(chats, client)
    finally:
        chats.close()
