"""Every body of /v1/conversations validates against OpenAI's own specification (skipped where it is not at hand)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from frontend.domain.generation import Candidate, TokenLogprobs
from frontend.domain.items import CompactionItem, Item, MessageItem, OutputText, Refusal
from frontend.domain.storage import Database
from tests.support.compatibility import OF_CONVERSATIONS
from tests.support.conversations import OURS, Api, api_for
from tests.support.spec import validator

PATH = "/v1/conversations"
SENT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
    {"role": "user", "content": "What is the weather?"},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "windy"}]},
    {"role": "assistant", "content": "Sunny and windy.", "status": "incomplete"},
]
STORED: list[Item] = [
    MessageItem(
        id="msg_generated",
        role="assistant",
        content=[
            OutputText("Hi", logprobs=[TokenLogprobs(Candidate(30, -0.5), [Candidate(31, -1.5)])]),
            Refusal("No."),
        ],
    ),
    CompactionItem(id="cmp_1", summary="They said hello."),
]


@pytest.fixture
async def api(sqlite_database: Database, smollm2: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2) as api:
        yield api


@pytest.mark.compat(OF_CONVERSATIONS, "every body is of OpenAI's specification")
async def test_conversations(api: Api, openai_spec: dict[str, Any]) -> None:
    """What create, get, update, and the delete of an item answer with; and what a deletion does."""
    conversation = validator(openai_spec, "ConversationResource")
    made = (await api.ours.post(PATH, json={"metadata": {"a": "1"}, "items": SENT})).json()
    path = f"{PATH}/{made['id']}"
    item_id = (await api.ours.get(f"{path}/items")).json()["first_id"]
    for body in (
        made,
        (await api.ours.post(PATH, json={})).json(),
        (await api.ours.get(path)).json(),
        (await api.ours.post(path, json={"metadata": {}})).json(),
        (await api.ours.delete(f"{path}/items/{item_id}")).json(),
        *(await api.ours.get(PATH)).json()["data"],
        (await api.ours.get(f"{path}/export")).json()["conversation"],
    ):
        conversation.validate(body)
    validator(openai_spec, "DeletedConversationResource").validate((await api.ours.delete(path)).json())


@pytest.mark.compat(OF_CONVERSATIONS, "every body is of OpenAI's specification")
async def test_items(api: Api, openai_spec: dict[str, Any]) -> None:
    """Lists and their members: of every kind that can be sent, and of those that only a turn makes."""
    items, item = validator(openai_spec, "ConversationItemList"), validator(openai_spec, "ConversationItem")
    path = f"{PATH}/{(await api.ours.post(PATH, json={})).json()['id']}"
    items.validate((await api.ours.get(f"{path}/items")).json())
    items.validate((await api.ours.post(f"{path}/items", json={"items": SENT})).json())
    async with api.database.writing() as uow:
        conversation_id = path.removeprefix(f"{PATH}/")
        await uow.conversations.append(OURS, conversation_id, STORED, now=1, most=100)
    listed = (await api.ours.get(f"{path}/items?include[]=message.output_text.logprobs&order=asc")).json()
    items.validate(listed)
    assert len(listed["data"]) == len(SENT) + len(STORED)
    assert listed["data"][-2]["content"][0]["logprobs"][0]["logprob"] == -0.5
    assert (await api.ours.get(f"{path}/items/msg_generated")).json()["content"][0]["logprobs"] == []
    for each in (*listed["data"], *(await api.ours.get(f"{path}/export")).json()["items"]):
        item.validate(each)
        item.validate((await api.ours.get(f"{path}/items/{each['id']}")).json())


async def test_the_strict_sdk(api: Api) -> None:
    """Reads every kind of item, as a member of a list and alone."""
    made = await api.sdk.conversations.create(items=SENT)  # type: ignore[arg-type]  # as plain objects
    async with api.database.writing() as uow:
        await uow.conversations.append(OURS, made.id, STORED, now=1, most=100)
    listed = [each async for each in api.sdk.conversations.items.list(made.id, limit=3)]
    assert len(listed) == len(SENT) + len(STORED)
    for each in listed:
        assert await api.sdk.conversations.items.retrieve(str(each.id), conversation_id=made.id) == each
