"""Chat completions that are turns of conversations: what is kept, what the next prompt holds, and what nobody may see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from frontend.domain.errors import Unavailable
from frontend.domain.generation import Sampling
from frontend.domain.messages import Message
from frontend.domain.principal import Principal
from frontend.domain.storage import Database
from frontend.services.chat import ChatTurn
from tests.fakes.engine import FakeEngine
from tests.support.compatibility import OF_CHAT, OF_SESSIONS
from tests.support.tenants import OURS, Api, Visitor, api_for, client

CHAT, CONVERSATIONS, SESSIONS = "/v1/chat/completions", "/v1/conversations", "/v1/sessions"
SYSTEM = {"role": "system", "content": "Be brief."}
CAPITAL = {"role": "user", "content": "What is the capital of France?"}
SURE = {"role": "user", "content": "Are you sure?"}
ANSWER = {"role": "assistant", "content": "Paris is the"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = ['<tool_call>\n{"name": "weather", ', '"arguments": {"city": ', '"Paris"}', "}\n</tool_call>"]


class PacedEngine(FakeEngine):
    """Says a word for each permit."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = asyncio.Semaphore(0)

    async def _pause(self, position: int) -> None:
        await self.permits.acquire()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def api(engine: FakeEngine, smollm2: Path, sqlite_database: Database) -> AsyncIterator[Api]:
    async with api_for(engine, smollm2, sqlite_database) as connected:
        yield connected


async def make(http: httpx.AsyncClient, path: str = CONVERSATIONS, **body: object) -> str:
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    made: str = response.json()["id"]
    return made


def turn(*messages: dict[str, Any], **more: object) -> dict[str, object]:
    return {"model": "hermes-2", "messages": messages, "max_tokens": 3} | more


async def say(http: httpx.AsyncClient, conversation: str, *messages: dict[str, Any], **more: object) -> Any:
    response = await http.post(CHAT, json=turn(*messages, conversation=conversation, **more))
    assert response.status_code == 200, response.text
    return response if more.get("stream") else response.json()


def failure(response: httpx.Response) -> tuple[int, str | None, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def kept(http: httpx.AsyncClient, conversation: str) -> list[tuple[str, ...]]:
    """Role, text and status of its messages, oldest first; name, arguments and status of calls; results."""
    page = (await http.get(f"{CONVERSATIONS}/{conversation}/items", params={"order": "asc", "limit": 100})).json()
    told: list[tuple[str, ...]] = []
    for item in page["data"]:
        if item["type"] == "message":
            told.append((item["role"], "".join(part["text"] for part in item["content"]), item["status"]))
        elif item["type"] == "function_call":
            told.append((item["name"], item["arguments"], item["status"]))
        else:
            told.append((item["call_id"], item["output"], item["status"]))
    return told


FIRST_TURN = [("user", CAPITAL["content"], "completed"), ("assistant", "Paris is the", "completed")]


def prompts(engine: FakeEngine, model: Path) -> list[str]:
    """What the engine was asked, control tokens and all."""
    tokenizer = Tokenizer.from_file(str(next(model.rglob("tokenizer.json"))))
    return [str(tokenizer.decode(list(r.prompt_ids), skip_special_tokens=False)) for r in engine.requests]


def said(response: httpx.Response) -> list[Any]:
    """The chunks of a stream."""
    frames = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    return [json.loads(frame) for frame in frames[:-1]]


class TestTurns:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.compat(OF_CHAT, "`conversation`: lasting conversations; only what is new is sent", says="ours")
    async def test_a_conversation_goes_on(self, api: Api, engine: FakeEngine, smollm2: Path, stream: bool) -> None:
        """What was said is in the next prompt, which begins with the one before; both turns are kept in order."""
        conversation = await make(api.ours)
        for message in (CAPITAL, SURE):
            await say(api.ours, conversation, message, stream=stream)
        first, second = prompts(engine, smollm2)
        assert second.startswith(first)
        assert second.endswith(
            "Paris is the<|im_end|>\n<|im_start|>user\nAre you sure?<|im_end|>\n<|im_start|>assistant\n"
        )
        assert await kept(api.ours, conversation) == [
            *FIRST_TURN,
            ("user", "Are you sure?", "completed"),
            ("assistant", "Paris is the", "completed"),
        ]

    async def test_alone_and_in_an_empty_conversation(self, api: Api, engine: FakeEngine) -> None:
        """The prompt is the same, whatever is in it."""
        messages = [SYSTEM, CAPITAL, ANSWER, SURE]
        more: dict[str, object] = {"tools": [WEATHER], "profile": "agent", "response_format": {"type": "json_object"}}
        await say(api.ours, await make(api.ours), *messages, **more)
        assert (await api.ours.post(CHAT, json=turn(*messages, **more))).status_code == 200
        in_conversation, alone = engine.requests
        assert in_conversation.prompt_ids == alone.prompt_ids
        assert in_conversation.sampling == alone.sampling
        assert in_conversation.constraint == alone.constraint

    @pytest.mark.compat(OF_CHAT, "`conversation`: the whole history is sent again", says="ours: kept once")
    async def test_a_history_that_is_sent_again(self, api: Api, engine: FakeEngine) -> None:
        """It is kept once: prompts and items are those of a client that sends what is new."""
        brief, verbose = await make(api.ours), await make(api.ours)
        for conversation, messages in ((brief, [SURE]), (verbose, [SYSTEM, CAPITAL, ANSWER, SURE])):
            await say(api.ours, conversation, SYSTEM, CAPITAL)
            await say(api.ours, conversation, *messages)
        assert await kept(api.ours, brief) == await kept(api.ours, verbose)
        assert engine.requests[1].prompt_ids == engine.requests[3].prompt_ids

    @pytest.mark.parametrize(
        ("messages", "param"),
        [
            ([CAPITAL, {"role": "assistant", "content": "London."}, SURE], "messages[1]"),
            ([SYSTEM, CAPITAL, ANSWER, SURE], "messages[0]"),
            ([SURE, ANSWER, SURE], "messages[0]"),
        ],
    )
    @pytest.mark.compat(OF_CHAT, "`conversation`: another history", says="ours: 400 `conversation_mismatch`")
    async def test_another_history(
        self, api: Api, engine: FakeEngine, messages: list[dict[str, Any]], param: str
    ) -> None:
        """400 that names the first message that differs, before the engine is asked; nothing is kept."""
        conversation = await make(api.ours)
        await say(api.ours, conversation, CAPITAL)
        response = await api.ours.post(CHAT, json=turn(*messages, conversation=conversation))
        assert failure(response) == (400, "conversation_mismatch", param)
        assert len(engine.requests) == 1
        assert await kept(api.ours, conversation) == FIRST_TURN

    async def test_nothing_new(self, api: Api) -> None:
        """400: there is nothing to answer."""
        conversation = await make(api.ours)
        await say(api.ours, conversation, CAPITAL)
        response = await api.ours.post(CHAT, json=turn(CAPITAL, ANSWER, conversation=conversation))
        assert failure(response) == (400, "invalid_value", "messages")

    async def test_it_is_kept_before_its_end_is_told(
        self, smollm2: Path, sqlite_database: Database, engine: FakeEngine
    ) -> None:
        """Who has read finish_reason finds the whole turn, and can take the next one."""
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            visitor = Visitor(CHAT, turn(CAPITAL, conversation=conversation, stream=True))
            seen: list[list[tuple[str, ...]]] = []

            async def send(message: Any) -> None:
                if b'"finish_reason":"length"' in message.get("body", b""):
                    seen.append(await kept(api.ours, conversation))

            visitor._send = send  # type: ignore[method-assign]  # a look at the database in the moment of sending
            await visitor.visit(api.app)
        assert seen == [FIRST_TURN]

    @pytest.mark.parametrize("by", ["request", "conversation", "key", "nobody"])
    async def test_whose_profile_speaks(self, api: Api, engine: FakeEngine, smollm2: Path, by: str) -> None:
        """The request's, else the conversation's, else the key's, else the default one."""
        rank = ["request", "conversation", "key", "nobody"].index(by)
        async with client(api.app, f"{OURS}+agent" if rank <= 2 else OURS) as http:
            conversation = await make(http, **({"profile": "extract"} if rank <= 1 else {}))
            await say(http, conversation, CAPITAL, **({"profile": "concise"} if rank == 0 else {}))
            if by == "key":
                assert (await http.post(CHAT, json=turn(CAPITAL))).status_code == 200
        temperatures = {"request": 0.3, "conversation": 0.0, "key": 0.0, "nobody": None}
        assert {request.sampling.temperature for request in engine.requests} == {temperatures[by]}
        assert ("one or two short sentences" in prompts(engine, smollm2)[0]) == (by == "request")
        assert list(engine.requests[0].sampling.stop) == (["\n"] if by == "conversation" else [])

    @pytest.mark.parametrize(
        ("more", "param"),
        [
            ({"n": 2}, "n"),
            ({"conversation": "a b"}, "conversation"),
            ({"conversation": {"id": "x", "y": 1}}, "conversation.y"),
            ({"conversation": 1}, "conversation"),
            ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "call_9"}]}, "messages"),
        ],
    )
    async def test_wrong_requests(self, api: Api, engine: FakeEngine, more: dict[str, Any], param: str) -> None:
        """400 that names the parameter, before the engine is asked."""
        conversation = await make(api.ours)
        response = await api.ours.post(CHAT, json=turn(CAPITAL, conversation=conversation) | more)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text
        assert engine.requests == []


class TestTools:
    async def test_a_result_needs_no_call(self, smollm2: Path, sqlite_database: Database) -> None:
        """The conversation knows it; the prompt is that of a client that sends it again."""
        engine = FakeEngine(says=CALL)
        async with api_for(engine, smollm2, sqlite_database) as api:
            brief, verbose = await make(api.ours), await make(api.ours)
            for conversation in (brief, verbose):
                body = await say(api.ours, conversation, CAPITAL, tools=[WEATHER], max_tokens=9)
                answer = body["choices"][0]["message"]
                result = {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "sunny"}
                messages = [result] if conversation == brief else [CAPITAL, answer, result]
                await say(api.ours, conversation, *messages, max_tokens=9)
            assert engine.requests[1].prompt_ids == engine.requests[3].prompt_ids
            assert '{"name": "weather", "content": "sunny"}' in prompts(engine, smollm2)[1]
            told = await kept(api.ours, brief)
            assert told[1] == ("weather", '{"city": "Paris"}', "completed")
            assert told[2][1:] == ("sunny", "completed")

    async def test_every_call_is_answered(self, smollm2: Path, sqlite_database: Database) -> None:
        """400 for a message in the place of a result, and the turn can be taken rightly afterwards."""
        async with api_for(FakeEngine(says=CALL), smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            body = await say(api.ours, conversation, CAPITAL, tools=[WEATHER], max_tokens=9)
            response = await api.ours.post(CHAT, json=turn(SURE, conversation=conversation))
            assert failure(response) == (400, "invalid_value", "messages")
            call_id = body["choices"][0]["message"]["tool_calls"][0]["id"]
            assert call_id in response.json()["error"]["message"]
            await say(api.ours, conversation, {"role": "tool", "tool_call_id": call_id, "content": "sunny"}, SURE)

    @pytest.mark.parametrize(("more", "arguments"), [({"max_tokens": 2}, '{"city":'), ({"stop": "x"}, "")])
    async def test_a_call_that_was_cut_is_not_one_to_make(
        self, smollm2: Path, sqlite_database: Database, more: dict[str, Any], arguments: str
    ) -> None:
        """By max_tokens or by a stop string: it is incomplete, and the conversation goes on without its result."""
        engine = FakeEngine(says=CALL if "max_tokens" in more else CALL[:1])
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            await say(api.ours, conversation, CAPITAL, tools=[WEATHER], **{"max_tokens": 9} | more)
            assert (await kept(api.ours, conversation))[1] == ("weather", arguments, "incomplete")
            await say(api.ours, conversation, SURE)


class TestSessions:
    @pytest.mark.compat(OF_SESSIONS, "`X-Session-ID` on chat completions", says="ours")
    async def test_the_header_leads_to_the_conversation(self, api: Api) -> None:
        """The same turn as with `conversation`, in either of its forms; both may be given if they agree."""
        conversation = await make(api.ours)
        session = await make(api.ours, SESSIONS, conversation=conversation)
        by_header = await api.ours.post(CHAT, json=turn(CAPITAL), headers={"x-session-id": session})
        assert by_header.status_code == 200
        assert await kept(api.ours, conversation) == FIRST_TURN
        both = await api.ours.post(
            CHAT, json=turn(SURE, conversation={"id": conversation}), headers={"x-session-id": session}
        )
        assert both.status_code == 200
        assert len(await kept(api.ours, conversation)) == 4

    async def test_another_conversation_than_the_sessions(self, api: Api, engine: FakeEngine) -> None:
        """400: one of the two is a mistake."""
        session, other = await make(api.ours, SESSIONS), await make(api.ours)
        response = await api.ours.post(CHAT, json=turn(CAPITAL, conversation=other), headers={"x-session-id": session})
        assert failure(response) == (400, "invalid_value", "conversation")
        assert engine.requests == []

    async def test_what_is_not_there(self, api: Api, engine: FakeEngine) -> None:
        """Unknown, foreign and deleted sessions and conversations are told in the same words, and nothing is kept."""
        session, conversation = await make(api.ours, SESSIONS), await make(api.ours)
        gone = await make(api.theirs, SESSIONS)
        assert (await api.theirs.delete(f"{SESSIONS}/{gone}")).status_code == 200
        by_session = [
            await api.theirs.post(CHAT, json=turn(CAPITAL), headers={"x-session-id": each})
            for each in ("sess_1", session, gone)
        ]
        assert {failure(each) for each in by_session} == {(404, "not_found", "X-Session-ID")}
        assert len({each.text for each in by_session}) == 1
        by_conversation = [
            await api.theirs.post(CHAT, json=turn(CAPITAL, conversation=each)) for each in ("conv_1", conversation)
        ]
        assert {failure(each) for each in by_conversation} == {(404, "not_found", "conversation")}
        assert by_conversation[0].text.replace("conv_1", conversation) == by_conversation[1].text
        malformed = await api.ours.post(CHAT, json=turn(CAPITAL), headers={"x-session-id": "a b"})
        assert malformed.status_code == 400
        assert engine.requests == []
        assert await kept(api.ours, conversation) == []


class TestEndsOfTurns:
    async def test_a_client_that_leaves_after_the_first_token(self, smollm2: Path, sqlite_database: Database) -> None:
        """What it could have heard is kept, and marked; the conversation is free, and the next prompt has it."""
        engine = PacedEngine()
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            visitor = Visitor(CHAT, turn(CAPITAL, conversation=conversation, stream=True))
            visit = asyncio.create_task(visitor.visit(api.app))
            engine.permits.release()
            await visitor.hears("Paris")
            visitor.left.set()
            await visit
            assert engine.running == 0
            assert await kept(api.ours, conversation) == [FIRST_TURN[0], ("assistant", "Paris", "incomplete")]
            for _ in range(3):
                engine.permits.release()
            await say(api.ours, conversation, SURE)
            assert "assistant\nParis<|im_end|>\n<|im_start|>user\nAre you sure?" in prompts(engine, smollm2)[1]

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_client_that_leaves_before_it(self, smollm2: Path, sqlite_database: Database, stream: bool) -> None:
        """Nothing is kept, and the conversation is free."""
        engine = PacedEngine()
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            visitor = Visitor(CHAT, turn(CAPITAL, conversation=conversation, stream=stream))
            visit = asyncio.create_task(visitor.visit(api.app))
            while not engine.running:
                await asyncio.sleep(0)
            visitor.left.set()
            await visit
            assert engine.running == 0
            assert await kept(api.ours, conversation) == []
            for _ in range(3):
                engine.permits.release()
            await say(api.ours, conversation, CAPITAL)
            assert await kept(api.ours, conversation) == FIRST_TURN

    @pytest.mark.compat(OF_CHAT, "`conversation`: a question that is asked again after a cut", says="ours: kept once")
    async def test_a_question_that_is_asked_again(self, smollm2: Path, sqlite_database: Database) -> None:
        """After a cut it is kept once, and answered as if it had been asked once."""
        engine = PacedEngine()
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            visitor = Visitor(CHAT, turn(SYSTEM, CAPITAL, conversation=conversation, stream=True))
            visit = asyncio.create_task(visitor.visit(api.app))
            engine.permits.release()
            await visitor.hears("Paris")
            visitor.left.set()
            await visit
            for _ in range(6):
                engine.permits.release()
            await say(api.ours, conversation, SYSTEM, CAPITAL)
            first, again = engine.requests
            assert first.prompt_ids == again.prompt_ids
            told = await kept(api.ours, conversation)
            assert [text for _, text, _ in told] == ["Be brief.", CAPITAL["content"], "Paris", "Paris is the"]
            await say(api.ours, conversation, SYSTEM, CAPITAL, ANSWER, SURE)
            assert len(await kept(api.ours, conversation)) == 6

    @pytest.mark.parametrize("fail_after", [0, 2])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_an_engine_that_fails(
        self, smollm2: Path, sqlite_database: Database, stream: bool, fail_after: int
    ) -> None:
        """Before the first token or after: the conversation is as it was, and free."""
        engine = FakeEngine(error=Unavailable("gone"), fail_after=fail_after)
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            response = await api.ours.post(CHAT, json=turn(CAPITAL, conversation=conversation, stream=stream))
            assert response.status_code == (200 if stream and fail_after else 503)
            assert "engine_unavailable" in response.text
            assert await kept(api.ours, conversation) == []
            engine._error = None
            await say(api.ours, conversation, CAPITAL)

    async def test_one_turn_at_a_time(self, smollm2: Path, sqlite_database: Database) -> None:
        """400 `conversation_locked` that SDKs try again, while another conversation goes on."""
        engine = PacedEngine()
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation, other = await make(api.ours), await make(api.ours)
            visitor = Visitor(CHAT, turn(CAPITAL, conversation=conversation, stream=True))
            visit = asyncio.create_task(visitor.visit(api.app))
            engine.permits.release()
            await visitor.hears("Paris")
            for stream in (True, False):
                response = await api.ours.post(CHAT, json=turn(SURE, conversation=conversation, stream=stream))
                assert failure(response) == (400, "conversation_locked", "conversation")
                assert response.headers["x-should-retry"] == "true"
            for _ in range(5):
                engine.permits.release()
            await say(api.ours, other, CAPITAL)
            await visit
            assert await kept(api.ours, conversation) == FIRST_TURN

    async def test_a_conversation_that_is_deleted_meanwhile(self, smollm2: Path, sqlite_database: Database) -> None:
        """The reply ends in an error, not in a finish_reason: nothing of it was kept."""
        engine = PacedEngine()
        async with api_for(engine, smollm2, sqlite_database) as api:
            conversation = await make(api.ours)
            visitor = Visitor(CHAT, turn(CAPITAL, conversation=conversation, stream=True))
            visit = asyncio.create_task(visitor.visit(api.app))
            engine.permits.release()
            await visitor.hears("Paris")
            assert (await api.ours.delete(f"{CONVERSATIONS}/{conversation}")).status_code == 200
            for _ in range(2):
                engine.permits.release()
            await visit
            assert "turn_lost" in visitor.heard
            assert '"finish_reason":"length"' not in visitor.heard
            assert visitor.heard.endswith("data: [DONE]\n\n")


class TestTheService:
    """What only its own interface shows."""

    async def open(self, api: Api, conversation: str, turn_id: str, question: str) -> Any:
        asked = ChatTurn(
            id=turn_id,
            model="hermes-2",
            messages=[Message("user", question)],
            sampling=Sampling(max_tokens=2),
            stream=False,
            conversation_id=conversation,
        )
        return await api.runtime.chat.open(asked, Principal("key", OURS, frozenset()), None)

    async def test_a_turn_that_was_prepared_too_early(self, api: Api, engine: FakeEngine, smollm2: Path) -> None:
        """It is prepared anew: its prompt has what another turn has said since, and its usage counts that prompt."""
        conversation = await make(api.ours)
        late = await self.open(api, conversation, "chatcmpl-2", "Second?")
        before = late.prompt_tokens
        first = await self.open(api, conversation, "chatcmpl-1", "First?")
        for reply in (first, late):
            assert [delta async for delta in reply.deltas]
        assert "First?<|im_end|>\n<|im_start|>assistant\nParis is<|im_end|>" in prompts(engine, smollm2)[1]
        assert late.prompt_tokens == len(engine.requests[1].prompt_ids) > before

    async def test_a_reply_that_nobody_reads(self, api: Api, engine: FakeEngine, sqlite_database: Database) -> None:
        """It has not begun: it holds nothing, and nobody waits for it."""
        conversation = await make(api.ours)
        reply = await self.open(api, conversation, "chatcmpl-1", "Anyone?")
        async with sqlite_database.reading() as uow:
            assert await uow.turns.running() == []
        await reply.deltas.aclose()
        assert engine.requests == []
        await say(api.ours, conversation, CAPITAL)


class TestLongConversations:
    async def test_what_does_not_fit_is_left_out_and_still_known(
        self, engine: FakeEngine, smollm2: Path, sqlite_database: Database
    ) -> None:
        """Prompts stay within the window; a history that is sent again is compared with all of it."""
        async with api_for(engine, smollm2, sqlite_database, ENGINE_MAX_MODEL_LEN="192") as api:
            conversation = await make(api.ours, context={"summary": False})
            history: list[dict[str, Any]] = []
            for i in range(12):
                history.append({"role": "user", "content": f"Question {i}: " + "word " * 10})
                await say(api.ours, conversation, history[-1])
                history.append(ANSWER)
            assert "Question 0" not in prompts(engine, smollm2)[-1]
            assert len(await kept(api.ours, conversation)) == 24
            await say(api.ours, conversation, *history, SURE)
            assert len(await kept(api.ours, conversation)) == 26
            assert len(engine.requests[-1].prompt_ids) < 192
            other = [{"role": "user", "content": "Question none"}, *history[1:], SURE]
            response = await api.ours.post(CHAT, json=turn(*other, conversation=conversation))
            assert failure(response) == (400, "conversation_mismatch", "messages[0]")

    async def test_a_conversation_that_must_not_be_trimmed(
        self, engine: FakeEngine, smollm2: Path, sqlite_database: Database
    ) -> None:
        """400 `context_length_exceeded` instead."""
        async with api_for(engine, smollm2, sqlite_database, ENGINE_MAX_MODEL_LEN="64") as api:
            conversation = await make(api.ours, context={"trim": False})
            await say(api.ours, conversation, CAPITAL)
            long = {"role": "user", "content": "word " * 40}
            response = await api.ours.post(CHAT, json=turn(long, conversation=conversation))
            assert failure(response) == (400, "context_length_exceeded", "messages")


class NoDatabase:
    """It is away."""

    def reading(self) -> Any:
        raise Unavailable("The database is away.")

    writing = reading

    async def check(self) -> bool:
        return False


async def test_a_chat_alone_needs_no_database(engine: FakeEngine, smollm2: Path) -> None:
    """It does not look into it; a conversation does, and says so."""
    async with api_for(engine, smollm2, NoDatabase()) as api:
        assert (await api.ours.post(CHAT, json=turn(CAPITAL))).status_code == 200
        response = await api.ours.post(CHAT, json=turn(CAPITAL, conversation="conv_1"))
        assert response.status_code == 503
    assert len(engine.requests) == 1
