"""Conversations, responses and the like, as tests want them: only what matters to the test is said."""

from __future__ import annotations

from typing import Any

from frontend.domain.api_keys import ApiKey
from frontend.domain.citations import FileCitation
from frontend.domain.conversations import Conversation, PageRequest, Session
from frontend.domain.idempotency import IdempotencyRecord
from frontend.domain.items import (
    CompactionItem,
    FileSearchCallItem,
    FileSearchResult,
    FunctionCallItem,
    FunctionOutputItem,
    InputText,
    Item,
    MessageItem,
    OutputText,
    Refusal,
)
from frontend.domain.responses import Response, TextDelta
from frontend.domain.storage import Database, StoredCompletion, Turn

NOW = 1_800_000_000
FAR = float(NOW + 1000)
EVERYTHING = PageRequest(limit=1000, order="asc")
MOST = 1000
ITEMS: list[Item] = [
    MessageItem(id="i1", role="user", content=[InputText("naïve 東京 🙂 \x00"), InputText("")]),
    MessageItem(id="i2", role="assistant", content=[OutputText("yes"), Refusal("no")], status="incomplete"),
    FunctionCallItem(id="i3", call_id="call_1", name="f", arguments='{"a": 1}'),
    FunctionOutputItem(id="i4", call_id="call_1", output=[InputText("x")]),
    FunctionOutputItem(id="i5", call_id="call_1", output="y"),
    CompactionItem(id="i6", summary="s"),
    FileSearchCallItem(
        id="i7",
        queries=["q"],
        results=[FileSearchResult(file_id="f", filename="a.txt", attributes={"n": 1.0}, text="t", score=0.5)],
    ),
    MessageItem(
        id="i8", role="assistant", content=[OutputText("So [1].", annotations=[FileCitation("f", "a.txt", 3)])]
    ),
]


def conversation(conversation_id: str = "conv_1", **fields: Any) -> Conversation:
    given = {"metadata": {}, "created_at": NOW, "last_active_at": NOW, **fields}
    return Conversation(id=conversation_id, **given)


def message(item_id: str, text: str = "hello") -> MessageItem:
    return MessageItem(id=item_id, role="user", content=[InputText(text)])


def messages(*item_ids: str) -> list[MessageItem]:
    return [message(item_id) for item_id in item_ids]


def response(response_id: str = "resp_1", **fields: Any) -> Response:
    given = {"model": "m", "status": "in_progress", "parameters": b"{}", "created_at": NOW, **fields}
    return Response(id=response_id, **given)


def completed(response_id: str = "resp_1", **fields: Any) -> Response:
    return response(response_id, **{"status": "completed", "completed_at": NOW + 5, **fields})


def turn(turn_id: str = "resp_1", conversation_id: str | None = "conv_1", **fields: Any) -> Turn:
    given = {"tenant": "a", "owner": "process 1", "lease_until": FAR, **fields}
    return Turn(id=turn_id, conversation_id=conversation_id, **given)


def session(session_id: str = "sess_1", conversation_id: str = "conv_1", **fields: Any) -> Session:
    given = {
        "metadata": {},
        "created_at": NOW,
        "last_used_at": NOW,
        "idle_timeout_s": 60,
        "expires_at": NOW + 600,
        **fields,
    }
    return Session(id=session_id, conversation_id=conversation_id, **given)


def completion(completion_id: str = "chatcmpl-1", **fields: Any) -> StoredCompletion:
    given = {"model": "m", "created_at": NOW, "metadata": {}, "body": b"{}", "messages": b"[]", **fields}
    return StoredCompletion(id=completion_id, **given)


def api_key(key_id: str = "0123456789abcdef", **fields: Any) -> ApiKey:
    given = {"tenant": "a", "name": "mine", "digest": b"\x00\xff", "scopes": frozenset({"chat"}), "created_at": NOW}
    return ApiKey(id=key_id, **{**given, **fields})


def idempotency_record(owner: str = "process 1", **fields: Any) -> IdempotencyRecord:
    given = {
        "key": "key-1",
        "fingerprint": b"\x00\x01fingerprint",
        "lease_until": NOW + 15.25,
        "created_at": NOW,
        "expires_at": NOW + 86_400,
    }
    return IdempotencyRecord(owner=owner, **{**given, **fields})


def deltas(first: int, last: int, text: str = "word ") -> list[TextDelta]:
    return [TextDelta(n=n, item_id="msg_1", output_index=0, text=text, logprobs=[]) for n in range(first, last + 1)]


async def with_items(database: Database, *item_ids: str) -> None:
    """conv_1 of tenant a, with these messages."""
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation(), MOST)
        if item_ids:
            await uow.conversations.append("a", "conv_1", messages(*item_ids), now=NOW, most=MOST)


async def sequence(database: Database) -> list[tuple[int, str]]:
    async with database.reading() as uow:
        return [(stored.seq, stored.item.id) for stored in await uow.items.behind("a", "conv_1", 0)]
