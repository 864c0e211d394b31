"""Items of conversations over a real database: their forms, their pages, and who may change them when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from frontend.domain.items import InputText, MessageItem
from frontend.domain.storage import Database, Turn
from tests.support.compatibility import OF_CONVERSATIONS
from tests.support.conversations import HELLO, OURS, PATH, START, Api, api_for, error, make, texts, told

CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}


@pytest.fixture
async def api(sqlite_database: Database, smollm2: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2) as api:
        yield api


def turn(conversation_id: str, lease_until: float = START + 15) -> Turn:
    return Turn(id="resp_1", tenant=OURS, conversation_id=conversation_id, owner="b/n/1/1", lease_until=lease_until)


class TestItems:
    @pytest.mark.compat(OF_CONVERSATIONS, "items: create, list, get, delete; `include`")
    async def test_a_life(self, api: Api) -> None:
        """Items come back in the forms of the SDK's types, newest first; a delete answers with the conversation."""
        made = await api.sdk.conversations.create()
        added = await api.sdk.conversations.items.create(
            made.id,
            items=[
                {"type": "message", "role": "user", "content": "What is the weather?"},
                {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
                {"type": "message", "role": "assistant", "content": "Sunny."},
            ],
            include=["message.output_text.logprobs"],
        )
        question, call, result, answer = added.data
        assert (added.first_id, added.last_id, added.has_more) == (question.id, answer.id, False)
        listed = await api.sdk.conversations.items.list(made.id, include=["message.output_text.logprobs"])
        assert [item.id for item in listed.data] == [item.id for item in reversed(added.data)]
        for item in (question, call, result, answer):
            assert await api.sdk.conversations.items.retrieve(str(item.id), conversation_id=made.id) == item
        left = await api.sdk.conversations.items.delete(str(answer.id), conversation_id=made.id)
        assert left.id == made.id
        with pytest.raises(openai.NotFoundError):
            await api.sdk.conversations.items.retrieve(str(answer.id), conversation_id=made.id)
        assert [item.id async for item in api.sdk.conversations.items.list(made.id, order="asc", limit=2)] == [
            question.id,
            call.id,
            result.id,
        ]

    async def test_the_words_of_user_and_assistant(self, api: Api) -> None:
        """A user's text is input_text; an assistant's is output_text with its annotations and log probabilities."""
        conversation_id = await make(api, items=[HELLO, {"role": "assistant", "content": "Hi."}])
        answer, question = (await api.ours.get(f"{PATH}/{conversation_id}/items")).json()["data"]
        assert question["content"] == [{"type": "input_text", "text": "Hello"}]
        assert answer["content"] == [{"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}]
        assert (question["type"], question["status"], answer["role"]) == ("message", "completed", "assistant")

    async def test_pages(self, api: Api) -> None:
        """25 items in pages, both ways: each once, in order, and `has_more` until the last."""
        conversation_id = await make(api)
        for first in (0, 20):
            items = [{"role": "user", "content": str(i)} for i in range(first, min(first + 20, 25))]
            assert (await api.ours.post(f"{PATH}/{conversation_id}/items", json={"items": items})).status_code == 200
        assert await texts(api, conversation_id) == [str(i) for i in range(24, 4, -1)]
        seen: list[str] = []
        page: dict[str, Any] = {"has_more": True}
        query: dict[str, Any] = {"order": "asc", "limit": 10}
        while page["has_more"]:
            page = (await api.ours.get(f"{PATH}/{conversation_id}/items", params=query)).json()
            seen += [item["content"][0]["text"] for item in page["data"]]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            query["after"] = page["last_id"]
        assert seen == [str(i) for i in range(25)]

    async def test_an_empty_list(self, api: Api) -> None:
        """Its ids are empty texts: OpenAI's types want strings."""
        made = await api.sdk.conversations.create()
        body = (await api.ours.get(f"{PATH}/{made.id}/items")).json()
        assert body == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}
        assert [item async for item in api.sdk.conversations.items.list(made.id)] == []
        assert (await api.sdk.conversations.items.create(made.id, items=[])).data == []

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=many", "limit"),
            ("limit=", "limit"),
            ("order=up", "order"),
            ("order=", "order"),
            ("after=", "after"),
            ("after=%00", "after"),
            ("after=" + "a" * 200, "after"),
            ("after=msg_unknown", "after"),
            ("include[]=everything", "include"),
            ("include=everything", "include"),
        ],
    )
    async def test_wrong_queries(self, api: Api, query: str, param: str) -> None:
        """400, naming the parameter; in the list of conversations too."""
        conversation_id = await make(api, items=[HELLO])
        assert error(await api.ours.get(f"{PATH}/{conversation_id}/items?{query}")) == (400, "invalid_value", param)
        if param != "include":
            assert error(await api.ours.get(f"{PATH}?{query}")) == (400, "invalid_value", param)

    @pytest.mark.parametrize("items", [[CALL, RESULT], [RESULT]])
    async def test_a_result_whose_call_is_there(self, api: Api, items: list[dict[str, Any]]) -> None:
        """In the same list before it, or anywhere in the conversation, however old."""
        conversation_id = await make(api, items=[CALL])
        async with api.database.writing() as uow:
            later = [MessageItem(id=f"msg_{i}", role="user", content=[InputText("and?")]) for i in range(150)]
            await uow.conversations.append(OURS, conversation_id, later, now=1, most=1000)
        response = await api.ours.post(f"{PATH}/{conversation_id}/items", json={"items": items})
        assert response.status_code == 200, response.text

    @pytest.mark.parametrize("items", [[RESULT], [RESULT, CALL], [CALL | {"call_id": "call_2"}, RESULT]])
    @pytest.mark.parametrize("there", [[], [HELLO]])
    async def test_a_result_without_its_call(
        self, api: Api, items: list[dict[str, Any]], there: list[dict[str, Any]]
    ) -> None:
        """400 that names the call, whether the conversation is new or not; nothing is added."""
        conversation_id = await make(api, items=there)
        for path in (PATH, f"{PATH}/{conversation_id}/items"):
            response = await api.ours.post(path, json={"items": items})
            assert error(response) == (400, "invalid_value", "items")
            assert "call_1" in response.json()["error"]["message"]
        assert len(await texts(api, conversation_id)) == len(there)

    async def test_a_reference_becomes_a_copy(self, api: Api) -> None:
        """An item that is kept can be added by its id, once more; another tenant's cannot."""
        source = await make(api, items=[HELLO])
        item_id = (await api.ours.get(f"{PATH}/{source}/items")).json()["first_id"]
        reference = {"type": "item_reference", "id": item_id}
        target = await make(api, items=[reference, reference])
        listed = (await api.ours.get(f"{PATH}/{target}/items")).json()
        assert await texts(api, target) == ["Hello", "Hello"]
        assert len({item_id, listed["first_id"], listed["last_id"]}) == 3
        theirs = await api.theirs.post(PATH, json={"items": [reference]})
        assert error(theirs) == (404, "not_found", "items")
        await api.ours.delete(f"{PATH}/{source}")
        await api.ours.delete(f"{PATH}/{target}")
        assert told(await api.theirs.post(PATH, json={"items": [reference]})) == told(theirs)

    @pytest.mark.parametrize(
        ("items", "param"),
        [
            ([HELLO] * 21, "items"),
            ([HELLO, {"role": "nobody", "content": "x"}], "items[1].role"),
            ([{"type": "web_search_call"}], "items[0].type"),
            ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "items[0].content[0]"),
        ],
    )
    async def test_wrong_items(self, api: Api, items: list[dict[str, Any]], param: str) -> None:
        """Too many, or of a form that this service has not: 400 with the place."""
        conversation_id = await make(api)
        for path in (PATH, f"{PATH}/{conversation_id}/items"):
            response = await api.ours.post(path, json={"items": items})
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)

    async def test_at_the_same_time(self, api: Api) -> None:
        """Ten writers of one conversation: all their items are there, those of each together."""
        conversation_id = await make(api)
        written = [[{"role": "user", "content": f"{i}{part}"} for part in "abc"] for i in range(10)]
        path = f"{PATH}/{conversation_id}/items"
        replies = await asyncio.gather(*(api.ours.post(path, json={"items": items}) for items in written))
        assert [reply.status_code for reply in replies] == [200] * 10
        said = await texts(api, conversation_id, limit="100", order="asc")
        assert sorted("".join(said[i : i + 3]) for i in range(0, 30, 3)) == [f"{i}a{i}b{i}c" for i in range(10)]


class TestRunningTurns:
    async def test_items_wait_for_the_turn(self, api: Api) -> None:
        """While a turn runs, adding and deleting items is refused with a 400 that the SDKs try again."""
        conversation_id = await make(api, items=[HELLO])
        item_id = (await api.ours.get(f"{PATH}/{conversation_id}/items")).json()["first_id"]
        async with api.database.writing() as uow:
            await uow.turns.begin(turn(conversation_id), START)
        for method, path, body in (("POST", "/items", {"items": [HELLO]}), ("DELETE", f"/items/{item_id}", None)):
            reply = await api.ours.request(method, f"{PATH}/{conversation_id}{path}", json=body)
            assert error(reply) == (400, "conversation_locked", "conversation")
            assert reply.headers["x-should-retry"] == "true"
        assert (await api.ours.post(f"{PATH}/{conversation_id}", json={"metadata": {"a": "1"}})).status_code == 200
        assert await texts(api, conversation_id) == ["Hello"]
        async with api.database.writing() as uow:
            assert await uow.turns.end(turn(conversation_id))
        assert (await api.ours.delete(f"{PATH}/{conversation_id}/items/{item_id}")).status_code == 200
        assert await texts(api, conversation_id) == []

    async def test_a_lease_that_is_over(self, api: Api) -> None:
        """Holds nobody up: its process is gone."""
        conversation_id = await make(api)
        async with api.database.writing() as uow:
            await uow.turns.begin(turn(conversation_id), START)
        api.clock.now += 15
        assert (await api.ours.post(f"{PATH}/{conversation_id}/items", json={"items": [HELLO]})).status_code == 200

    async def test_no_turn_is_left_behind(self, api: Api) -> None:
        """After a change of items, and after one that failed, a turn can begin."""
        conversation_id = await make(api)
        await api.ours.post(f"{PATH}/{conversation_id}/items", json={"items": [HELLO]})
        await api.ours.delete(f"{PATH}/{conversation_id}/items/msg_unknown")
        async with api.database.writing() as uow:
            assert await uow.turns.running() == []
            await uow.turns.begin(turn(conversation_id), START)

    async def test_deleting_goes_before_a_turn(self, api: Api) -> None:
        """The conversation is gone at once; the turn finds that it holds nothing any more."""
        conversation_id = await make(api, items=[HELLO])
        async with api.database.writing() as uow:
            await uow.turns.begin(turn(conversation_id), START)
        assert (await api.ours.delete(f"{PATH}/{conversation_id}")).status_code == 200
        async with api.database.writing() as uow:
            assert not await uow.turns.end(turn(conversation_id))
