"""frontend/services/responses behind its routes, over a fake engine and a real database: what becomes of a turn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontend.domain.errors import Unavailable
from frontend.domain.storage import Database
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for

URL = "/v1/responses"
SAYS = ["Paris", " is", " the", " capital", "."]
LONG = "word " * 75


@pytest.fixture
async def client(smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(FakeEngine(says=SAYS), smollm2) as connected:
        yield connected


def ask(text: str = "Where?", **more: object) -> dict[str, object]:
    return {"model": "hermes-2", "input": text} | more


async def made(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    reply = await client.post(URL, json=ask(**more))
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


async def got(client: httpx.AsyncClient, response_id: str) -> dict[str, Any]:
    body: dict[str, Any] = (await client.get(f"{URL}/{response_id}")).json()
    return body


async def said(client: httpx.AsyncClient, conversation: str) -> list[tuple[str, str, str]]:
    reply = await client.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"})
    return [(item["role"], item["content"][0]["text"], item["status"]) for item in reply.json()["data"]]


async def until(client: httpx.AsyncClient, response_id: str, *status: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (body := await got(client, response_id))["status"] not in status:
            await asyncio.sleep(0.01)
    return body


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


class TestChains:
    async def test_it_holds_what_was_said(self, client: httpx.AsyncClient) -> None:
        """Inputs, outputs and system items of all before; instructions of its own turn only."""
        rules = [{"role": "system", "content": "Answer in verse."}, {"role": "user", "content": "Where?"}]
        first = await made(client, input=rules, instructions="Be brief.")
        second = await made(client, previous_response_id=first["id"])
        counted = await client.post(f"{URL}/input_tokens", json=ask(previous_response_id=second["id"]))
        whole = [
            *rules,
            {"role": "assistant", "content": "Paris is the capital."},
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "Paris is the capital."},
            {"role": "user", "content": "Where?"},
        ]
        expected = await client.post(f"{URL}/input_tokens", json=ask(input=whole))
        assert counted.json() == expected.json()

    async def test_two_may_go_on_from_one(self, client: httpx.AsyncClient) -> None:
        """A chain is a tree: neither branch sees the other."""
        first = await made(client)
        left = await made(client, previous_response_id=first["id"])
        right = await made(client, previous_response_id=first["id"])
        assert left["usage"]["input_tokens"] == right["usage"]["input_tokens"]

    @pytest.mark.parametrize("gone", ["unknown", "not stored", "deleted", "its beginning was deleted"])
    async def test_what_is_not_there_cannot_be_gone_on_from(self, client: httpx.AsyncClient, gone: str) -> None:
        """One answer for all of them."""
        first = await made(client, store=gone != "not stored")
        wanted = {"unknown": "resp_unknown"}.get(gone, first["id"])
        if gone == "its beginning was deleted":
            wanted = (await made(client, previous_response_id=first["id"]))["id"]
        if "deleted" in gone:
            assert (await client.delete(f"{URL}/{first['id']}")).status_code == 200
        reply = await client.post(URL, json=ask(previous_response_id=wanted))
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "previous_response_not_found")
        assert reply.json()["error"]["param"] == "previous_response_id"

    async def test_too_long_is_refused_or_cut_as_wished(self, smollm2: Path) -> None:
        """`truncation: auto` leaves out the beginning, and the next link begins where this one did."""
        async with client_for(FakeEngine(says=SAYS), smollm2, ENGINE_MAX_MODEL_LEN="256") as client:
            first = await made(client, input=LONG)
            second = await made(client, input=LONG, previous_response_id=first["id"])
            refused = await client.post(URL, json=ask(LONG, previous_response_id=second["id"]))
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
            third = await made(client, input=LONG, previous_response_id=second["id"], truncation="auto")
            assert third["usage"]["input_tokens"] < 256
            fourth = await made(client, input="Short?", previous_response_id=third["id"], truncation="auto")
            assert fourth["usage"]["input_tokens"] < 256

    async def test_tool_outputs_are_kept(self, smollm2: Path) -> None:
        """A call, its result, and the answer: sent one after the other, each once."""
        call = ['<tool_call>\n{"name": "where", "arguments": {"city": "Paris"}}\n</tool_call>']
        tools = [{"type": "function", "name": "where", "parameters": {"type": "object"}, "strict": False}]
        async with client_for(FakeEngine(says=call), smollm2) as client:
            first = await made(client, tools=tools)
            (made_call,) = first["output"]
            assert (made_call["type"], json.loads(made_call["arguments"])) == ("function_call", {"city": "Paris"})
            output = {"type": "function_call_output", "call_id": made_call["call_id"], "output": "In France."}
            second = await made(client, input=[output], tools=tools, previous_response_id=first["id"])
            third = await made(
                client, previous_response_id=first["id"], input=[output, {"role": "user", "content": "So?"}]
            )
            assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
            assert third["status"] == "completed"
            unanswered = await client.post(URL, json=ask(previous_response_id=first["id"]))
            assert unanswered.status_code == 400


class TestStore:
    async def test_what_is_not_stored_is_nowhere(self, client: httpx.AsyncClient, sqlite_database: Database) -> None:
        """Neither to be read nor in any table."""
        first = await made(client, store=False)
        assert (await client.get(f"{URL}/{first['id']}")).status_code == 404

    async def test_in_a_conversation_its_items_are_kept_all_the_same(self, client: httpx.AsyncClient) -> None:
        """The conversation asked for them, not the response."""
        conversation = (await client.post("/v1/conversations", json={})).json()["id"]
        first = await made(client, store=False, conversation=conversation)
        assert [role for role, _, _ in await said(client, conversation)] == ["user", "assistant"]
        assert (await client.get(f"{URL}/{first['id']}")).status_code == 404

    async def test_a_deleted_response_leaves_the_conversation_its_items(self, client: httpx.AsyncClient) -> None:
        """They are the conversation's."""
        conversation = (await client.post("/v1/conversations", json={})).json()["id"]
        first = await made(client, conversation=conversation)
        assert (await client.delete(f"{URL}/{first['id']}")).status_code == 200
        assert len(await said(client, conversation)) == 2
        await made(client, conversation=conversation)


class TestFailures:
    @pytest.mark.parametrize("more", [{}, {"stream": True}])
    async def test_before_the_first_token_it_leaves_no_trace(self, smollm2: Path, more: dict[str, Any]) -> None:
        """The status says it, and the conversation is free and as it was."""
        engine = FakeEngine(error=Unavailable("away"), fail_after=0)
        async with client_for(engine, smollm2) as client:
            conversation = (await client.post("/v1/conversations", json={})).json()["id"]
            for _ in range(2):
                reply = await client.post(URL, json=ask(conversation=conversation, **more))
                assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
            assert await said(client, conversation) == []

    async def test_later_it_is_the_responses_end(self, smollm2: Path) -> None:
        """The last event says that it has failed; so does the response; the conversation is as it was."""
        engine = FakeEngine(error=Unavailable("away"), fail_after=3)
        async with client_for(engine, smollm2) as client:
            conversation = (await client.post("/v1/conversations", json={})).json()["id"]
            reply = await client.post(URL, json=ask(conversation=conversation, stream=True))
            told = events(reply.text)
            assert told[-1]["type"] == "response.failed"
            stored = await got(client, told[-1]["response"]["id"])
            assert stored == told[-1]["response"]
            assert stored["error"]["code"] == "server_error"
            assert await said(client, conversation) == []
            again = await client.get(f"{URL}/{stored['id']}", params={"stream": "true"})
            assert events(again.text) == told

    async def test_in_the_background_it_is_told_by_the_response(self, smollm2: Path) -> None:
        """Whenever it fails."""
        async with client_for(FakeEngine(error=Unavailable("away"), fail_after=0), smollm2) as client:
            body = await until(client, (await made(client, background=True))["id"], "failed")
            assert body["error"]["code"] == "server_error"


class TestLeaving:
    async def test_after_the_first_token_it_is_incomplete(self, smollm2: Path) -> None:
        """What there was is kept, and the conversation goes on from there."""
        engine = FakeEngine()
        async with client_for(engine, smollm2) as client:
            conversation = (await client.post("/v1/conversations", json={})).json()["id"]
            body = ask(conversation=conversation, stream=True, max_output_tokens=4000)
            await cut_after(client, body, "response.output_text.delta")
            async with asyncio.timeout(5):
                while engine.running or not await said(client, conversation):
                    await asyncio.sleep(0.01)
            (_, question, _), (role, answer, status) = await said(client, conversation)
            assert (question, role, status) == ("Where?", "assistant", "incomplete")
            assert answer.startswith("Paris")

    async def test_before_it_nothing_has_happened(self, smollm2: Path) -> None:
        """Queued or not: the engine is asked no more, and the conversation is free at once."""
        engine = FakeEngine(hold=asyncio.Event())
        async with client_for(engine, smollm2) as client:
            conversation = (await client.post("/v1/conversations", json={})).json()["id"]
            for stream in (True, False):
                request = asyncio.create_task(client.post(URL, json=ask(conversation=conversation, stream=stream)))
                async with asyncio.timeout(5):
                    while not engine.running:
                        await asyncio.sleep(0.01)
                request.cancel()
                await asyncio.wait([request])
                async with asyncio.timeout(5):
                    while engine.running:
                        await asyncio.sleep(0.01)
            assert await said(client, conversation) == []
            deleted = await client.delete(f"/v1/conversations/{conversation}")
            assert deleted.status_code == 200


async def cut_after(client: httpx.AsyncClient, body: dict[str, Any], event: str) -> None:
    """Leaves when `event` has come. httpx's transport gives a stream only when it is whole, so the application is called by
    hand."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    request = client.build_request("POST", URL, json=body)
    left = asyncio.Event()
    sent = [{"type": "http.request", "body": request.content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if event.encode() in message.get("body", b""):
            left.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": "http",
        "path": URL,
        "raw_path": URL.encode(),
        "query_string": b"",
        "server": ("hermes2", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    async with asyncio.timeout(10):
        await transport.app(scope, receive, send)


class TestBackground:
    async def test_it_goes_on_without_its_client(self, client: httpx.AsyncClient) -> None:
        first = await made(client, background=True)
        assert (first["status"], first["output"], first["background"]) == ("queued", [], True)
        body = await until(client, first["id"], "completed")
        assert body["output"][0]["content"][0]["text"] == "Paris is the capital."

    async def test_cancelled_wherever_it_is(self, smollm2: Path) -> None:
        """Who follows it is told; cancelling twice is the same as once; what has ended cannot be cancelled."""
        engine = FakeEngine(hold=asyncio.Event())
        async with client_for(engine, smollm2) as client:
            first = await made(client, background=True)
            following = asyncio.create_task(client.get(f"{URL}/{first['id']}", params={"stream": "true"}))
            await asyncio.sleep(0.05)
            for _ in range(2):
                body = (await client.post(f"{URL}/{first['id']}/cancel")).json()
                assert body["status"] == "cancelled"
            told = events((await following).text)
            assert [each["sequence_number"] for each in told] == list(range(len(told)))
            assert told[0]["type"] == "response.created"
            assert told[-1]["response"]["status"] == "cancelled"
            assert engine.running == 0

    async def test_only_what_runs_there_can_be_cancelled(self, client: httpx.AsyncClient) -> None:
        for more in ({}, {"background": True}):
            response = await made(client, **more)
            await until(client, response["id"], "completed")
            refused = await client.post(f"{URL}/{response['id']}/cancel")
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "response_id")

    async def test_deleted_while_it_runs(self, smollm2: Path) -> None:
        """It stops, and stays deleted."""
        engine = FakeEngine(hold=asyncio.Event())
        async with client_for(engine, smollm2) as client:
            first = await made(client, background=True)
            assert (await client.delete(f"{URL}/{first['id']}")).status_code == 200
            assert (await client.get(f"{URL}/{first['id']}")).status_code == 404
            assert engine.running == 0

    async def test_their_number_is_bounded(self, smollm2: Path) -> None:
        """Per tenant; others have room."""
        engine = FakeEngine(hold=asyncio.Event())
        async with client_for(engine, smollm2, CONVERSATIONS_BACKGROUND_PER_TENANT="2") as client:
            responses = [await made(client, background=True) for _ in range(2)]
            together = await asyncio.gather(*(client.post(URL, json=ask(background=True)) for _ in range(8)))
            assert {reply.status_code for reply in together} == {400}
            refused = await client.post(URL, json=ask(background=True))
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "quota_exceeded")
            await client.post(f"{URL}/{responses[0]['id']}/cancel")
            responses.append(await made(client, background=True))
            for response in responses[1:]:
                await client.post(f"{URL}/{response['id']}/cancel")

    async def test_what_was_not_streamed_cannot_be_streamed_again(self, client: httpx.AsyncClient) -> None:
        first = await made(client)
        refused = await client.get(f"{URL}/{first['id']}", params={"stream": "true"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream")


class TestSessions:
    async def test_a_header_leads_to_the_conversation(self, client: httpx.AsyncClient) -> None:
        session = (await client.post("/v1/sessions", json={})).json()
        header = {"X-Session-ID": session["id"]}
        reply = await client.post(URL, json=ask(), headers=header)
        assert reply.json()["conversation"] == session["conversation"]
        other = (await client.post("/v1/conversations", json={})).json()["id"]
        contrary = await client.post(URL, json=ask(conversation=other), headers=header)
        assert (contrary.status_code, contrary.json()["error"]["param"]) == (400, "conversation")
        chained = await client.post(URL, json=ask(previous_response_id=reply.json()["id"]), headers=header)
        assert chained.status_code == 400
        unknown = await client.post(URL, json=ask(), headers={"X-Session-ID": "sess_unknown"})
        assert unknown.status_code == 404


async def test_compacted_it_can_be_gone_on_from(client: httpx.AsyncClient) -> None:
    """The sealed summary stands in the place of what was said; a changed one is refused."""
    first = await made(client, input=LONG)
    compacted = (await client.post(f"{URL}/compact", json=ask("And?", previous_response_id=first["id"]))).json()
    (item,) = compacted["output"]
    assert item["type"] == "compaction"
    again = await made(client, input=[item, {"role": "user", "content": "So?"}])
    assert again["status"] == "completed"
    changed = item | {"encrypted_content": item["encrypted_content"][:-4] + "AAAA"}
    refused = await client.post(URL, json=ask(input=[changed, {"role": "user", "content": "So?"}]))
    assert refused.status_code == 400


async def test_text_and_calls_of_one_delta_keep_their_order(smollm2: Path) -> None:
    """A busy engine sends what has gathered: the end of a call and the words behind it come together."""
    says = ['<tool_call>\n{"name": "where", "arguments": {"city": "Pa', 'ris"}}\n</tool_call>\nDone.', " So."]
    tools = [{"type": "function", "name": "where", "parameters": {"type": "object"}, "strict": False}]
    async with client_for(FakeEngine(says=says), smollm2) as client:
        for stream in (True, False):
            reply = await client.post(URL, json=ask(tools=tools, stream=stream))
            body = events(reply.text)[-1]["response"] if stream else reply.json()
            assert [item["type"] for item in body["output"]] == ["function_call", "message"]
            assert json.loads(body["output"][0]["arguments"]) == {"city": "Paris"}
            assert body["output"][1]["content"][0]["text"].strip() == "Done. So."


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"background": True}])
async def test_a_defect_ends_a_response_too(smollm2: Path, more: dict[str, Any]) -> None:
    """Whatever is raised: it is told, and its conversation is free again."""
    async with client_for(FakeEngine(error=RuntimeError("a defect"), fail_after=2), smollm2) as client:  # type: ignore[arg-type]  # that is the point
        conversation = (await client.post("/v1/conversations", json={})).json()["id"]
        reply = await client.post(URL, json=ask(conversation=conversation, **more))
        if "background" in more:
            assert (await until(client, reply.json()["id"], "failed"))["error"]["code"] == "server_error"
        elif "stream" in more:
            assert events(reply.text)[-1]["type"] == "response.failed"
        else:
            assert reply.status_code == 500
        assert await said(client, conversation) == []
        locked = await client.post(
            f"/v1/conversations/{conversation}/items", json={"items": [{"role": "user", "content": "Hi"}]}
        )
        assert locked.status_code == 200
