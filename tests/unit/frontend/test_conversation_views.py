"""A conversation as a whole, over a real database: its export, and the prompt that it would give."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from frontend.domain.items import InputText, MessageItem, OutputText
from frontend.domain.storage import Database
from frontend.http.json_stream import JsonStream
from tests.support.compatibility import OF_CONVERSATIONS
from tests.support.conversations import HELLO, OURS, PATH, Api, api_for, error, make, texts

CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}


@pytest.fixture
async def api(sqlite_database: Database, smollm2: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2) as api:
        yield api


class TestExport:
    @pytest.mark.compat(OF_CONVERSATIONS, "export, and what the next prompt would hold", says="ours")
    async def test_everything(self, api: Api) -> None:
        """The conversation and its items as the other routes show them, oldest first."""
        conversation_id = await make(api, metadata={"a": "1"}, items=[HELLO, CALL, RESULT])
        body = (await api.ours.get(f"{PATH}/{conversation_id}/export")).json()
        conversation = (await api.ours.get(f"{PATH}/{conversation_id}")).json()
        items = (await api.ours.get(f"{PATH}/{conversation_id}/items", params={"order": "asc"})).json()["data"]
        assert body == {"object": "conversation.export", "conversation": conversation, "items": items}

    async def test_an_empty_one(self, api: Api) -> None:
        """Has no items."""
        assert (await api.ours.get(f"{PATH}/{await make(api)}/export")).json()["items"] == []

    async def test_20000_items_do_not_stop_the_others(self, api: Api) -> None:
        """The event loop is free again within milliseconds all the while, and nothing is left out."""
        conversation_id = await make(api)
        for first in range(0, 20_000, 2_000):
            items = [
                MessageItem(id=f"msg_{i}", role="assistant", content=[OutputText(f"{i} " + "word " * 100)])
                for i in range(first, first + 2_000)
            ]
            async with api.database.writing() as uow:
                await uow.conversations.append(OURS, conversation_id, items, now=1, most=20_000)
        gaps: list[float] = []

        async def tick() -> None:
            before = time.perf_counter()
            while True:
                await asyncio.sleep(0)
                now = time.perf_counter()
                gaps.append(now - before)
                before = now

        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        gaps.clear()
        response = await api.ours.get(f"{PATH}/{conversation_id}/export")
        ticking.cancel()
        gaps.sort()
        print(f"export of 20,000 items: longest gaps {[round(gap * 1e3, 1) for gap in gaps[-3:]]} ms")
        assert [item["id"] for item in response.json()["items"]] == [f"msg_{i}" for i in range(20_000)]
        assert gaps[-10] < 0.025  # 5 ms on an idle machine; tests share two cores, and their garbage is collected too

    async def test_the_client_leaves(self) -> None:
        """The pieces are closed when the client is gone, even while one of them cannot be sent."""
        closed = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"[]"
            finally:
                closed.set()

        leaving = asyncio.Event()

        async def receive() -> Any:
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                leaving.set()
                await asyncio.Event().wait()

        await JsonStream(pieces())({"type": "http"}, receive, send)  # type: ignore[arg-type]  # all that it looks at
        assert closed.is_set()

    async def test_deleted_meanwhile(self, api: Api) -> None:
        """The body breaks off, and is no JSON: nobody takes a part for the whole."""
        conversation_id = await make(api)
        words = [MessageItem(id=f"msg_{i}", role="user", content=[InputText("word " * 400)]) for i in range(200)]
        async with api.database.writing() as uow:
            await uow.conversations.append(OURS, conversation_id, words, now=1, most=1000)
        sent: list[bytes] = []

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))
            if len(sent) == 2:
                await api.ours.delete(f"{PATH}/{conversation_id}")

        async def receive() -> Any:
            await asyncio.Event().wait()

        app: Any = api.ours._transport
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"{PATH}/{conversation_id}/export",
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer ours")],
        }
        with pytest.raises(Exception, match="started"):
            await app.app(scope, receive, send)
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(b"".join(sent))


class TestContext:
    @pytest.mark.compat(OF_CONVERSATIONS, "export, and what the next prompt would hold", says="ours")
    async def test_what_the_next_prompt_holds(self, api: Api) -> None:
        """Each part with its turns and tokens; together they are the prompt, and a question can be tried."""
        items: Sequence[dict[str, str]] = [
            {"role": "system", "content": "Be brief."},
            HELLO,
            {"role": "assistant", "content": "Hi."},
        ]
        conversation_id = await make(api, items=items, context={"summary": False})
        plain = (await api.ours.get(f"{PATH}/{conversation_id}/context")).json()
        asked = (await api.ours.get(f"{PATH}/{conversation_id}/context", params={"input": "And now?"})).json()
        parts = {part["name"]: [turn["text"] for turn in part["turns"]] for part in asked["parts"]}
        assert (parts["history"], parts["input"]) == (["Hello", "Hi."], ["And now?"])
        assert "Be brief." in parts["system"][-1]
        assert "input" not in {part["name"] for part in plain["parts"]}
        for body in (plain, asked):
            assert body["prompt_tokens"] == sum(part["tokens"] for part in body["parts"])
            assert body["conversation_id"] == conversation_id
            assert body["context"]["summary"] is False
        assert asked["prompt_tokens"] > plain["prompt_tokens"]
        assert await texts(api, conversation_id, order="asc") == ["Be brief.", "Hello", "Hi."]

    async def test_a_question_that_is_too_long(self, api: Api) -> None:
        """Does not belong into a URL."""
        path = f"{PATH}/{await make(api)}/context"
        assert error(await api.ours.get(path, params={"input": "x" * 8193})) == (400, "invalid_value", "input")

    async def test_a_trim_is_shown(self, api: Api) -> None:
        """What the next turn would leave out is said, and is not left out yet."""
        conversation_id = await make(api, items=[HELLO | {"content": f"{i} " + "word " * 30} for i in range(20)])
        body = (await api.ours.get(f"{PATH}/{conversation_id}/context", params={"input": "And now?"})).json()
        assert body["trim"]["upto"] > 0
        assert body["prompt_tokens"] + body["answer_tokens"] <= body["window_tokens"]
        assert (await api.ours.get(f"{PATH}/{conversation_id}/context", params={"input": "And now?"})).json() == body
        refused = await make(api, items=[HELLO | {"content": "word " * 30}] * 20, context={"trim": False})
        assert error(await api.ours.get(f"{PATH}/{refused}/context")) == (400, "context_length_exceeded", "input")
