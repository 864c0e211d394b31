"""Chat completions that are stored: what is kept, when, how it is found again, and that nobody else finds it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from frontend.domain.errors import Unavailable
from frontend.domain.storage import Database
from tests.fakes.engine import FakeEngine
from tests.support.compatibility import OF_CHAT
from tests.support.spec import validator
from tests.support.tenants import OURS, Api, Visitor, api_for

CHAT = "/v1/chat/completions"
HELLO = {"role": "user", "content": "Hello"}
SAYS = ["Let me see.", '<tool_call>\n{"name": "weather", "arguments": ', '{"city": "Paris"}', "}\n</tool_call>"]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def api(engine: FakeEngine, smollm2: Path, sqlite_database: Database) -> AsyncIterator[Api]:
    async with api_for(engine, smollm2, sqlite_database) as connected:
        yield connected


def chat(**more: object) -> dict[str, object]:
    return {"model": "hermes-2", "messages": [HELLO], "max_tokens": 3, "store": True} | more


async def store(http: httpx.AsyncClient, **more: object) -> str:
    """The id."""
    response = await http.post(CHAT, json=chat(**more))
    assert response.status_code == 200, response.text
    made: str = response.json()["id"]
    return made


async def listed(http: httpx.AsyncClient, **query: object) -> list[str]:
    response = await http.get(CHAT, params={key: str(value) for key, value in query.items()})
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()["data"]]


def failure(response: httpx.Response) -> tuple[int, str | None, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def chunks(text: str) -> list[Any]:
    frames = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    return [json.loads(frame) for frame in frames[:-1]]


def told(body: dict[str, Any]) -> dict[str, Any]:
    """Without what is different in each reply."""
    text = json.dumps(body | {"id": "", "created": 0})
    for choice in body["choices"]:
        for call in choice["message"].get("tool_calls", ()):
            text = text.replace(call["id"], "call_id")
    same: dict[str, Any] = json.loads(text)
    return same


class TestWhatIsKept:
    @pytest.mark.compat(OF_CHAT, "`store`, `metadata`; stored completions: list, get, update, delete")
    async def test_a_life(self, api: Api) -> None:
        """It comes back as it was answered, changes its metadata and nothing else, and is gone when it is deleted."""
        completions = api.sdk.chat.completions
        made = await completions.create(
            model="hermes-2",
            messages=[{"role": "user", "content": "Hello"}],
            store=True,
            metadata={"topic": "x"},
            max_tokens=3,
        )
        assert made.id.startswith("chatcmpl-")
        assert await completions.retrieve(made.id) == made
        assert [each async for each in completions.list()] == [made]
        changed = await completions.update(made.id, metadata={"topic": "y"})
        assert changed.to_dict() == made.to_dict() | {"metadata": {"topic": "y"}}
        assert await completions.retrieve(made.id) == changed
        deleted = await completions.delete(made.id)
        assert (deleted.id, deleted.deleted) == (made.id, True)
        with pytest.raises(openai.NotFoundError):
            await completions.retrieve(made.id)
        assert [each async for each in completions.list()] == []

    @pytest.mark.parametrize("with_usage", [True, False])
    async def test_a_stream_is_kept_as_a_whole_reply(
        self, smollm2: Path, sqlite_database: Database, with_usage: bool
    ) -> None:
        """With several choices, calls and log probabilities: the body is that of the reply without `stream`."""
        asked = chat(n=2, tools=[WEATHER], logprobs=True, top_logprobs=2, max_tokens=9, metadata={"a": "b"})
        async with api_for(FakeEngine(says=SAYS), smollm2, sqlite_database) as api:
            whole = (await api.ours.post(CHAT, json=asked)).json()
            options = {"stream_options": {"include_usage": True}} if with_usage else {}
            stream = await api.ours.post(CHAT, json=asked | {"stream": True} | options)
            kept_whole = (await api.ours.get(f"{CHAT}/{whole['id']}")).json()
            kept_stream = (await api.ours.get(f"{CHAT}/{chunks(stream.text)[0]['id']}")).json()
        assert kept_whole == whole
        assert told(kept_stream) == told(whole)
        assert kept_stream["metadata"] == {"a": "b"}
        assert [choice["finish_reason"] for choice in kept_stream["choices"]] == ["tool_calls", "tool_calls"]

    async def test_the_bodies_are_openais(self, api: Api, openai_spec: dict[str, Any]) -> None:
        """Lists, deletions and completions pass OpenAI's specification; a user's message passes all but one of its words."""
        completion_id = await store(api.ours)
        body = (await api.ours.get(f"{CHAT}/{completion_id}")).json()
        page = (await api.ours.get(CHAT)).json()
        messages = (await api.ours.get(f"{CHAT}/{completion_id}/messages")).json()
        deleted = (await api.ours.delete(f"{CHAT}/{completion_id}")).json()
        validator(openai_spec, "CreateChatCompletionResponse").validate(body)
        validator(openai_spec, "ChatCompletionList").validate(page)
        validator(openai_spec, "ChatCompletionDeleted").validate(deleted)
        assert messages["data"][0].pop("role") == "user"  # the specification says "assistant", its own example "user"
        messages["data"][0]["role"] = "assistant"
        validator(openai_spec, "ChatCompletionMessageList").validate(messages)

    async def test_it_is_kept_before_its_end_is_told(self, api: Api) -> None:
        """Who has read the last finish_reason finds it."""
        visitor = Visitor(CHAT, chat(stream=True, n=2))
        seen: list[int] = []

        async def send(message: Any) -> None:
            if b'"finish_reason":"length"' in message.get("body", b""):
                seen.append(len(await listed(api.ours)))

        visitor._send = send  # type: ignore[method-assign]  # a look at the database in the moment of sending
        await visitor.visit(api.app)
        assert seen == [1]  # both choices end with one delta

    @pytest.mark.parametrize("more", [{"store": False}, {"store": None}, {"stream": True, "store": None}])
    async def test_what_is_not_to_be_kept(self, api: Api, more: dict[str, Any]) -> None:
        """Is not, and its body has no metadata."""
        response = await api.ours.post(CHAT, json=chat(**more, metadata={"a": "b"}))
        assert response.status_code == 200
        assert "metadata" not in response.text
        assert await listed(api.ours) == []

    async def test_what_did_not_come_to_its_end(self, smollm2: Path, sqlite_database: Database) -> None:
        """An engine that fails and a client that leaves: nothing is kept."""
        engine = FakeEngine(error=Unavailable("gone"), fail_after=1)
        async with api_for(engine, smollm2, sqlite_database) as api:
            for stream in (True, False):
                await api.ours.post(CHAT, json=chat(stream=stream))
            engine._error, engine._hold = None, asyncio.Event()
            visitor = Visitor(CHAT, chat(stream=True))
            visit = asyncio.create_task(visitor.visit(api.app))
            while not engine.running:
                await asyncio.sleep(0)
            visitor.left.set()
            await visit
            assert await listed(api.ours) == []

    async def test_a_turn_of_a_conversation(self, api: Api) -> None:
        """Both are kept; to forget one is not to forget the other."""
        conversation = (await api.ours.post("/v1/conversations", json={})).json()["id"]
        completion_id = await store(api.ours, conversation=conversation)
        assert await listed(api.ours) == [completion_id]
        assert (await api.ours.delete(f"{CHAT}/{completion_id}")).status_code == 200
        items = (await api.ours.get(f"/v1/conversations/{conversation}/items")).json()["data"]
        assert len(items) == 2


class TestLists:
    @pytest.mark.compat(OF_CHAT, "stored completions: `model`, `metadata[key]`, `limit`, `after`, `order` of the list")
    async def test_pages(self, api: Api, sqlite_database: Database) -> None:
        """Each once, oldest first unless asked otherwise, through the SDK's own paging."""
        made = {await store(api.ours) for _ in range(5)}
        pages = api.sdk.chat.completions
        forwards = [each.id async for each in pages.list(limit=2)]
        backwards = [each.id async for each in pages.list(limit=2, order="desc")]
        assert set(forwards) == made
        assert forwards == backwards[::-1]
        page = (await api.ours.get(CHAT, params={"limit": "2"})).json()
        assert (page["first_id"], page["last_id"], page["has_more"]) == (*forwards[:2], True)
        last = (await api.ours.get(CHAT, params={"after": forwards[2]})).json()
        assert ([each["id"] for each in last["data"]], last["has_more"]) == (forwards[3:], False)

    async def test_filters(self, api: Api) -> None:
        """The model by its name or its alias, metadata by all that is asked for."""
        ours = await store(api.ours, metadata={"topic": "x", "user": "1"})
        other = await store(api.ours, metadata={"topic": "y"})
        assert await listed(api.ours, **{"metadata[topic]": "x", "metadata[user]": "1"}) == [ours]
        assert await listed(api.ours, **{"metadata[topic]": "x", "metadata[user]": "2"}) == []
        for model in ("hermes-2", "smollm2-135m"):
            assert set(await listed(api.ours, model=model)) == {ours, other}
        assert await listed(api.ours, model="gone-7b") == []
        found = [each.id async for each in api.sdk.chat.completions.list(metadata={"topic": "y"}, model="hermes-2")]
        assert found == [other]

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ({"limit": "0"}, "limit"),
            ({"limit": "101"}, "limit"),
            ({"order": "up"}, "order"),
            ({"after": "a b"}, "after"),
            ({"after": "chatcmpl-0"}, "after"),
            ({"model": "\0"}, "model"),
            ({"metadata": "x"}, "metadata"),
        ],
    )
    async def test_wrong_queries(self, api: Api, query: dict[str, str], param: str) -> None:
        """400 that names the parameter."""
        response = await api.ours.get(CHAT, params=query)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


class TestMessages:
    SENT: tuple[dict[str, Any], ...] = (
        {"role": "developer", "content": "Be brief.", "name": "me"},
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": " is it?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": "Why?"},
    )

    @pytest.mark.compat(OF_CHAT, "stored completions: messages")
    async def test_as_they_were_sent(self, api: Api) -> None:
        """Every role, with its own fields; parts are shown as parts and as one text."""
        completion_id = await store(api.ours, messages=self.SENT)
        body = (await api.ours.get(f"{CHAT}/{completion_id}/messages")).json()
        assert [each["role"] for each in body["data"]] == [each["role"] for each in self.SENT]
        assert [each["id"] for each in body["data"]] == [f"{completion_id}-{i}" for i in range(6)]
        developer, parts, call, result, refusal, why = body["data"]
        assert (developer["content"], developer["name"], developer["content_parts"]) == ("Be brief.", "me", None)
        assert (parts["content"], parts["content_parts"]) == ("What is it?", self.SENT[1]["content"])
        assert (call["content"], call["tool_calls"]) == (None, self.SENT[2]["tool_calls"])
        assert (result["content"], result["tool_call_id"]) == ("sunny", "call_1")
        assert (refusal["content"], refusal["refusal"]) == (None, "No.")
        assert why == {
            "id": f"{completion_id}-5",
            "role": "user",
            "content": "Why?",
            "name": None,
            "refusal": None,
            "content_parts": None,
        }

    async def test_pages(self, api: Api) -> None:
        """Through the SDK's own paging, both ways. It is not strict here: its type knows no message of a user."""
        completion_id = await store(api.ours, messages=self.SENT)
        sdk = openai.AsyncOpenAI(
            api_key=OURS,
            base_url="http://hermes2/v1",
            http_client=api.ours,  # type: ignore[arg-type]  # the SDK takes httpx as well as its successor
        )
        expected = [f"{completion_id}-{i}" for i in range(6)]
        pages = sdk.chat.completions.messages
        assert [each.id async for each in pages.list(completion_id, limit=4)] == expected
        assert [each.id async for each in pages.list(completion_id, limit=4, order="desc")] == expected[::-1]
        path = f"{CHAT}/{completion_id}/messages"
        empty = (await api.ours.get(path, params={"after": expected[-1]})).json()
        assert empty == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}
        assert failure(await api.ours.get(path, params={"after": "nobody"})) == (400, "invalid_value", "after")


class TestIsolation:
    async def test_what_another_tenant_has_does_not_exist(self, api: Api) -> None:
        """On every route a foreign id is told in the words of an unknown one; nothing changes, nothing is listed."""
        ours = await store(api.ours, metadata={"a": "b"})
        for method, path, body in (
            ("GET", "{}", None),
            ("POST", "{}", {"metadata": {}}),
            ("DELETE", "{}", None),
            ("GET", "{}/messages", None),
        ):
            foreign, unknown = [
                await api.theirs.request(method, f"{CHAT}/{path.format(each)}", json=body)
                for each in (ours, "chatcmpl-unknown")
            ]
            assert failure(foreign) == failure(unknown) == (404, "not_found", None)
            assert foreign.text.replace(ours, "chatcmpl-unknown") == unknown.text
        assert await listed(api.theirs) == []
        assert failure(await api.theirs.get(CHAT, params={"after": ours})) == (400, "invalid_value", "after")
        assert (await api.ours.get(f"{CHAT}/{ours}")).json()["metadata"] == {"a": "b"}

    @pytest.mark.parametrize("completion_id", ["a%20b", "%00", "x" * 129])
    async def test_what_is_no_id(self, api: Api, completion_id: str) -> None:
        """404 without a look into the database."""
        assert (await api.ours.get(f"{CHAT}/{completion_id}")).status_code == 404

    @pytest.mark.parametrize(
        ("body", "param"),
        [({}, "metadata"), ({"metadata": {"k": 1}}, "metadata"), ({"metadata": {}, "model": "x"}, "model")],
    )
    async def test_wrong_updates(self, api: Api, body: dict[str, Any], param: str) -> None:
        """400 that names the parameter; null empties the metadata."""
        completion_id = await store(api.ours, metadata={"a": "b"})
        response = await api.ours.post(f"{CHAT}/{completion_id}", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert (await api.ours.post(f"{CHAT}/{completion_id}", json={"metadata": None})).json()["metadata"] == {}


class BreakingDatabase:
    """A real one, until it goes away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_away = False

    def _there(self) -> Database:
        if self.is_away:
            raise Unavailable("The database is away.")
        return self._database

    def reading(self) -> Any:
        return self._there().reading()

    def writing(self) -> Any:
        return self._there().writing()

    async def check(self) -> bool:
        return not self.is_away


async def test_a_reply_that_could_not_be_kept(engine: FakeEngine, smollm2: Path, sqlite_database: Database) -> None:
    """It fails, as a response would: 503, or an error event in the place of the last finish_reason."""
    database = BreakingDatabase(sqlite_database)
    async with api_for(engine, smollm2, database) as api:
        database.is_away = True
        assert (await api.ours.post(CHAT, json=chat())).status_code == 503
        stream = await api.ours.post(CHAT, json=chat(stream=True))
        *said, last = chunks(stream.text)
        assert all(choice["finish_reason"] is None for chunk in said for choice in chunk["choices"])
        assert "error" in last
        assert (await api.ours.post(CHAT, json=chat(store=False))).status_code == 200
        database.is_away = False
        assert await listed(api.ours) == []
