"""Counts and ratios that hold the speed: what a turn costs in SQL, and a chunk in bytes and writes; see perf/ for the times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, event

from frontend.domain.storage import Database
from tests.fakes.engine import FakeEngine
from tests.support.tenants import Api, Visitor, api_for

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SAYS = [f" word{number}" for number in range(40)]
SIZES = (5, 200)
"""Items of a conversation, or messages of a chat."""
MINE: ContextVar[list[str]] = ContextVar("MINE")
"""Where SQL notes the statements of this task and those that it starts."""


@pytest.fixture
async def api(smollm2: Path, sqlite_database: Database) -> AsyncIterator[Api]:
    async with api_for(FakeEngine(says=SAYS), smollm2, sqlite_database) as connected:
        yield connected


def said(count: int) -> list[dict[str, str]]:
    return [{"role": "assistant" if number % 2 else "user", "content": f"No. {number}"} for number in range(count)]


async def conversation_of(api: Api, items: int) -> str:
    made = await api.ours.post("/v1/conversations", json={})
    name: str = made.json()["id"]
    for begin in range(0, items, 20):
        some = [{"type": "message"} | each for each in said(items)[begin : begin + 20]]
        added = await api.ours.post(f"/v1/conversations/{name}/items", json={"items": some})
        assert added.status_code == 200, added.text
    return name


async def statements(api: Api, path: str, body: dict[str, object]) -> int:
    """Those of the request and of what it starts; not those of the sweeps that run beside it."""
    mine: list[str] = []
    token = MINE.set(mine)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        response = await api.ours.post(path, json={"model": "hermes-2"} | body)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        MINE.reset(token)
    assert response.status_code == 200, response.text
    return len(mine)


def note(*arguments: Any) -> None:
    MINE.get([]).append(arguments[2])


class TestStatements:
    @pytest.mark.parametrize(
        ("path", "stream", "most"), [(RESPONSES, False, 11), (RESPONSES, True, 13), (CHAT, False, 7), (CHAT, True, 7)]
    )
    async def test_a_turn_does_not_cost_more_in_a_long_conversation(
        self, api: Api, path: str, stream: bool, most: int
    ) -> None:
        """Neither the first one, for which all of it is read with one statement, nor the next ones."""
        ask = {"messages": said(1)} if path == CHAT else {"input": "Hello"}
        found = []
        for items in SIZES:
            body = ask | {"conversation": await conversation_of(api, items), "stream": stream}
            found.append([await statements(api, path, body) for _ in range(3)])
        short, long = found
        assert short == long
        assert max(long) == long[0] <= most + 1
        assert max(long[1:]) <= most

    async def test_a_stored_chat_costs_one_statement(self, api: Api) -> None:
        """However many messages it has; and one that is not stored, none."""
        for store in (True, False):
            for messages in SIZES:
                assert await statements(api, CHAT, {"messages": said(messages), "store": store}) == int(store)


class TestFrames:
    async def test_a_chunk_is_hardly_longer_than_it_must_be(self, api: Api) -> None:
        """Than its text within what OpenAI's schema of a chunk requires."""
        for frame in (await self.writes(api))[1:-2]:
            assert len(frame) <= 1.2 * len(shortest(frame))

    async def test_a_delta_is_one_frame_and_one_write(self, api: Api) -> None:
        """With the first goes the role, with the last the reason; the end comes behind them."""
        writes = await self.writes(api)
        assert [write.count(b"data: ") for write in writes] == [2, *[1] * (len(SAYS) - 2), 2, 1]

    async def writes(self, api: Api) -> list[bytes]:
        body = {"model": "hermes-2", "messages": said(1), "stream": True}
        visitor = Visitor(CHAT, body)
        await visitor.visit(api.app)
        return [message["body"] for message in visitor._sent if message["type"] == "http.response.body"]


def shortest(frame: bytes) -> bytes:
    chunk: dict[str, Any] = msgspec.json.decode(frame.removeprefix(b"data: "))
    (choice,) = chunk["choices"]
    needed = {name: chunk[name] for name in ("id", "object", "created", "model")}
    choices = [{"index": 0, "delta": {"content": choice["delta"]["content"]}, "finish_reason": None}]
    return b"data: " + msgspec.json.encode(needed | {"choices": choices}) + b"\n\n"
