"""/v1/responses: what a request means, how each wrong one is told, and what the routes do beside what the service does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from frontend.api.responses import mapping
from frontend.api.responses.schema import CompactInput, CountInputTokens, CreateResponse, Parameters
from frontend.domain.errors import InvalidRequest
from frontend.domain.items import InputText, ItemReference, MessageItem
from frontend.domain.seal import Seal
from frontend.services.responses.task import ResponseTask
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.compatibility import OF_RESPONSES

RESPONSES = "/v1/responses"
MINE = Seal(b"a secret of 32 bytes for the test").of("tenant")
LOGPROBS = ["message.output_text.logprobs"]


def tool(name: str = "f", **more: object) -> dict[str, Any]:
    return {"type": "function", "name": name} | more


def json_of(**schema: object) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}}


def request(**more: object) -> dict[str, Any]:
    return {"model": "hermes-2", "input": "Hello"} | more


def task(session_id: str | None = None, **more: object) -> ResponseTask:
    data = msgspec.convert(request(**more), CreateResponse, strict=True)
    return mapping.to_task(data, session_id, MINE)


def shown(session_id: str | None = None, **more: object) -> dict[str, Any]:
    """What the response will say of its parameters."""
    said: dict[str, Any] = json.loads(task(session_id, **more).parameters)
    return said


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine, smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(engine, smollm2) as connected:
        yield connected


class TestWhatARequestMeans:
    @pytest.mark.compat(OF_RESPONSES, "`input` as a text or as items, `instructions`")
    def test_a_text_is_the_user_s_message(self) -> None:
        """With an id of ours; instructions go apart."""
        asked = task(instructions="Be brief.")
        (item,) = asked.input
        assert isinstance(item, MessageItem)
        assert (item.role, item.content) == ("user", [InputText("Hello")])
        assert item.id.startswith("msg_")
        assert asked.instructions == "Be brief."

    def test_items_keep_their_order(self) -> None:
        """References among them."""
        first, second = task(input=[{"id": "msg_1"}, {"role": "user", "content": "Hi"}]).input
        assert first == ItemReference("msg_1")
        assert isinstance(second, MessageItem)

    @pytest.mark.compat(
        OF_RESPONSES, "`temperature`, `top_p`, `max_output_tokens`, penalties; vLLM's `top_k`, `min_p`, …"
    )
    def test_sampling(self) -> None:
        """OpenAI's parameters, and vLLM's for what OpenAI lacks; what was not said stays unset."""
        said = task(
            temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, seed=-1, max_output_tokens=1, presence_penalty=0.1,
            frequency_penalty=-0.1, repetition_penalty=1.2
        ).sampling  # fmt: skip
        assert (said.temperature, said.top_p, said.top_k, said.min_p, said.max_tokens) == (0.5, 0.9, 3, 0.1, 1)
        assert (said.presence_penalty, said.frequency_penalty, said.repetition_penalty) == (0.1, -0.1, 1.2)
        assert said.seed == 2**62 - 1
        silent = task().sampling
        assert (silent.temperature, silent.max_tokens, silent.logprobs, silent.n) == (None, None, None, 1)

    @pytest.mark.parametrize(
        ("more", "logprobs"),
        [
            ({"include": LOGPROBS}, 0),
            ({"include": LOGPROBS, "top_logprobs": 3}, 3),
            ({"top_logprobs": 3}, None),
            ({"include": ["reasoning.encrypted_content", "file_search_call.results"]}, None),
        ],
    )
    @pytest.mark.compat(
        OF_RESPONSES, "`include`: all of OpenAI's names; `message.output_text.logprobs` with `top_logprobs`"
    )
    def test_log_probabilities_are_generated_where_they_are_shown(
        self, more: dict[str, Any], logprobs: int | None
    ) -> None:
        """As OpenAI has it: `include` asks for them, `top_logprobs` says how many."""
        assert task(**more).sampling.logprobs == logprobs

    @pytest.mark.compat(OF_RESPONSES, "function `tools`, `tool_choice` with `allowed_tools`, `parallel_tool_calls`")
    def test_tools(self) -> None:
        """Flat, as responses have them; the choices are those of chats."""
        two = [tool("f", description="F.", parameters={"type": "object", "properties": {}}), tool("g")]
        free = task(tools=two)
        assert [each.name for each in free.tools] == ["f", "g"]
        assert free.tools[0].description == "F."
        assert free.tool_choice is not None
        assert (free.tool_choice.required, free.tool_choice.several) == (False, True)
        forced = task(tools=two, tool_choice={"type": "function", "name": "g"}).tool_choice
        assert forced is not None
        assert ([each.name for each in forced.callable], forced.required, forced.several) == (["g"], True, False)
        allowed = {"type": "allowed_tools", "mode": "required", "tools": [tool("g"), tool("f")]}
        some = task(tools=two, tool_choice=allowed, parallel_tool_calls=False).tool_choice
        assert some is not None
        assert ([each.name for each in some.callable], some.required, some.several) == (["g", "f"], True, False)
        none = task(tools=two, tool_choice="none")
        assert (none.tools, none.tool_choice) == ([], None)

    @pytest.mark.compat(OF_RESPONSES, "`text.format`: `text`, `json_object`, `json_schema`")
    def test_json(self) -> None:
        """A schema is enforced; any object without one; text is free."""
        wanted = task(text=json_of(type="object", properties={"a": {"type": "integer"}})).json_format
        assert wanted is not None
        assert wanted.schema == {"type": "object", "properties": {"a": {"type": "integer"}}}
        any_json = task(text={"format": {"type": "json_object"}}).json_format
        assert any_json is not None
        assert any_json.enforced == {"type": "object"}
        for text in ({"format": {"type": "text"}}, {}, {"verbosity": "low"}):
            assert task(text=text).json_format is None

    @pytest.mark.compat(
        OF_RESPONSES, "`previous_response_id`, `conversation`, `store`, `background`, `truncation`, `metadata`"
    )
    def test_state(self) -> None:
        """A conversation is a text or an object; storing is the default."""
        assert task(conversation="conv_1").conversation_id == "conv_1"
        assert task(conversation={"id": "conv_1"}).conversation_id == "conv_1"
        assert task(previous_response_id="resp_1").previous_response_id == "resp_1"
        assert task("sess_1").session_id == "sess_1"
        assert [task(store=store).store for store in (None, True, False)] == [True, True, False]
        assert (task(background=True).background, task(stream=True).stream) == (True, True)
        assert [task(truncation=each).truncation for each in (None, "auto", "disabled")] == [None, "auto", "disabled"]

    def test_there_may_be_nothing_new(self) -> None:
        """Where there is something to go on from."""
        for more in ({"previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
            assert task(input=None, **more).input == []
            assert task(input=[], **more).input == []
        assert task("sess_1", input=None).input == []

    @pytest.mark.parametrize(
        "more",
        [
            {"user": "someone", "safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
            {"service_tier": "flex", "reasoning": {"effort": "high", "summary": "auto", "generate_summary": "auto"}},
            {"max_tool_calls": 3, "stream": True, "stream_options": {"include_obfuscation": False}},
            {"prompt": None, "context_management": [], "moderation": None, "metadata": None, "tools": []},
            {"tools": [tool(defer_loading=False)], "tool_choice": "required"},
        ],
    )
    @pytest.mark.compat(
        OF_RESPONSES, "`user`, `safety_identifier`, `prompt_cache_key`, `service_tier`, `reasoning`, …",
        says="accepted; they change nothing here",
    )  # fmt: skip
    def test_what_changes_nothing_is_taken(self, more: dict[str, Any]) -> None:
        """Clients send it always."""
        assert task(**more).model == "hermes-2"

    def test_tokens_are_counted_of_the_same_request(self) -> None:
        """Parameters of the answer are taken, and do not count."""
        data = msgspec.convert(request(tools=[tool()], temperature=0.5), CountInputTokens, strict=True)
        counted, made = mapping.to_prompt_task(data, None, MINE), task(tools=[tool()], temperature=0.5)
        assert (counted.tools, counted.tool_choice) == (made.tools, made.tool_choice)
        assert len(counted.input) == 1

    def test_a_compaction_is_of_input_and_what_came_before(self) -> None:
        """And of nothing else; one of them there must be."""
        data = CompactInput(model="hermes-2", input="Hello", previous_response_id="resp_1", instructions="Be brief.")
        asked = mapping.to_compaction_task(data, MINE)
        assert (len(asked.input), asked.previous_response_id, asked.instructions) == (1, "resp_1", "Be brief.")
        with pytest.raises(InvalidRequest, match="input"):
            mapping.to_compaction_task(CompactInput(model="hermes-2"), MINE)


class TestWhatIsShownAgain:
    def test_defaults(self) -> None:
        """OpenAI's, where nothing was said."""
        said = shown()
        assert (said["temperature"], said["top_p"], said["truncation"], said["store"]) == (1.0, 1.0, "disabled", True)
        assert (said["tools"], said["tool_choice"], said["text"]) == ([], "auto", {"format": {"type": "text"}})
        assert "user" not in said

    def test_a_conversation_is_trimmed(self) -> None:
        """Unless the request forbids it; that is what `truncation` says then."""
        assert shown(conversation="conv_1")["truncation"] == "auto"
        assert shown("sess_1")["truncation"] == "auto"
        assert shown(conversation="conv_1", truncation="disabled")["truncation"] == "disabled"

    def test_everything_comes_back(self) -> None:
        """As it was asked for, also through the form in which it is kept."""
        choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
        form = json_of(type="object", properties={"a": {"type": "integer"}})["format"]
        asked = request(
            instructions="Be brief.", temperature=0, top_p=0.5, max_output_tokens=5, metadata={"k": "v"}, user="u",
            tools=[tool(strict=None)], tool_choice=choice, text={"format": form, "verbosity": "low"}, store=False,
            safety_identifier="s", prompt_cache_key="k", max_tool_calls=2, parallel_tool_calls=False, top_logprobs=3,
        )  # fmt: skip
        said = shown(**asked)
        kept = msgspec.to_builtins(msgspec.json.decode(task(**asked).parameters, type=Parameters))
        for view in (said, kept):
            for name in asked.keys() - {"model", "input", "tools", "text"}:
                assert view[name] == asked[name], name
            assert view["tools"] == [tool(description=None, parameters=None, strict=None)]
            assert view["text"] == {"format": form | {"description": ""}, "verbosity": "low"}
            assert view["reasoning"] == {"effort": None, "summary": None}


WRONG: list[tuple[str, dict[str, Any], str | None]] = [
    ("a missing model", {"input": "Hello"}, "model"),
    ("neither input nor history", {"model": "hermes-2"}, "input"),
    ("no items and no history", request(input=[]), "input"),
    ("an unknown field", request(max_tokens=5), "max_tokens"),
    ("an input that is a number", request(input=5), "input"),
    ("a number as a string", request(max_output_tokens="5"), "max_output_tokens"),
    ("no tokens at all", request(max_output_tokens=0), "max_output_tokens"),
    ("a temperature above two", request(temperature=2.5), "temperature"),
    ("too many candidates", request(top_logprobs=21), "top_logprobs"),
    ("an item's part", request(input=[{"role": "user", "content": [{"type": "input_image"}]}]), "input[0].content[0]"),
    ("an unknown include", request(include=["everything"]), "include[0]"),
    ("in the background without storing", request(background=True, store=False), "background"),
    (
        "a conversation and a previous response",
        request(conversation="conv_1", previous_response_id="resp_1"),
        "previous_response_id",
    ),
    ("a conversation of an odd form", request(conversation={"name": "x"}), "conversation.name"),
    ("an id that is none", request(previous_response_id="a\0b"), "previous_response_id"),
    ("options of a stream that is none", request(stream_options={}), "stream_options"),
    ("usage in the stream's options", request(stream=True, stream_options={"include_usage": True}), None),
    ("a hosted tool", request(tools=[tool(), {"type": "web_search"}]), "tools[1].type"),
    ("a tool without a type", request(tools=[{"name": "f"}]), "tools[0].type"),
    ("a chat's tool", request(tools=[{"type": "function", "function": {"name": "f"}}]), "tools[0].function"),
    ("a tool's odd name", request(tools=[tool("a b")]), "tools[0].name"),
    ("two tools of a name", request(tools=[tool(), tool()]), "tools[1].name"),
    ("parameters of a string", request(tools=[tool(parameters={"type": "string"})]), "tools[0].parameters"),
    ("a strict tool that cannot be", request(tools=[tool(strict=True, parameters={"$ref": "#"})]), None),
    ("a choice without tools", request(tool_choice="required"), "tool_choice"),
    ("a choice that is no tool", request(tools=[tool()], tool_choice={"type": "function", "name": "g"}), "tool_choice"),
    ("a choice of a hosted tool", request(tools=[tool()], tool_choice={"type": "web_search"}), "tool_choice.type"),
    ("a search that is not offered", request(tools=[tool()], tool_choice={"type": "file_search"}), "tool_choice"),
    (
        "a search of no store",
        request(tools=[{"type": "file_search", "vector_store_ids": []}]),
        "tools[0].vector_store_ids",
    ),
    (
        "a search without an embedding model",
        request(tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}]),
        "tools",
    ),
    (
        "a schema that cannot be enforced",
        request(text=json_of(type="number", multipleOf=2)),
        "text.format.schema.multipleOf",
    ),
    ("a chat's format", request(response_format={"type": "json_object"}), "response_format"),
    ("a format without a schema", request(text={"format": {"type": "json_schema", "name": "x"}}), "text.format.schema"),
    ("a prompt template", request(prompt={"id": "pmpt_1"}), "prompt"),
    ("managed context", request(context_management=[{"type": "compaction"}]), "context_management"),
    ("moderation", request(moderation={"model": "m"}), "moderation"),
    ("an odd truncation", request(truncation="middle"), "truncation"),
    ("too much metadata", request(metadata={str(i): "" for i in range(17)}), "metadata"),
    ("a long value in the metadata", request(metadata={"k": "x" * 513}), None),
    ("a long safety identifier", request(safety_identifier="x" * 65), "safety_identifier"),
]
UNSUPPORTED = {"a hosted tool", "a prompt template", "managed context", "moderation", "an item's part"}


class TestWrongRequests:
    @pytest.mark.compat(OF_RESPONSES, "wrong requests are refused by the parameter's path")
    async def test_each_is_told_by_its_parameter(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        """400 in OpenAI's envelope, and nothing reaches the engine."""
        for what, body, param in WRONG:
            response = await client.post(RESPONSES, json=body)
            assert response.status_code == 400, what
            error = response.json()["error"]
            assert param in (None, error["param"]), what
            if what in UNSUPPORTED:
                assert error["code"] == "unsupported_parameter", what
        assert engine.requests == []

    async def test_queries_and_headers(self, client: httpx.AsyncClient) -> None:
        """Bounds of pages, numbers of events, what to include, and a session's id."""
        for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=a%20b", "include[]=all"):
            assert (await client.get(f"{RESPONSES}/resp_1/input_items?{query}")).status_code == 400, query
        for query in ("stream=x", "stream=true&starting_after=-1", "include=all"):
            assert (await client.get(f"{RESPONSES}/resp_1?{query}")).status_code == 400, query
        for session in ("a b", "x" * 129, ""):
            asked = await client.post(RESPONSES, json=request(), headers={"x-session-id": session})
            assert asked.status_code == 400, session


class TestRoutes:
    async def test_what_is_not_there(self, client: httpx.AsyncClient) -> None:
        """404 in OpenAI's envelope, whatever is asked of it."""
        for answer in [
            await client.get(f"{RESPONSES}/resp_1"),
            await client.get(f"{RESPONSES}/a%00b"),
            await client.get(f"{RESPONSES}/resp_1?stream=true"),
            await client.get(f"{RESPONSES}/resp_1/input_items"),
            await client.post(f"{RESPONSES}/resp_1/cancel"),
            await client.delete(f"{RESPONSES}/resp_1"),
        ]:
            assert answer.status_code == 404
            assert answer.json()["error"]["type"] == "invalid_request_error"

    async def test_deleting(self, client: httpx.AsyncClient) -> None:
        """OpenAI's answer, and then it is gone."""
        made = (await client.post(RESPONSES, json=request(max_output_tokens=2))).json()
        deleted = await client.delete(f"{RESPONSES}/{made['id']}")
        assert (deleted.status_code, deleted.json()) == (
            200,
            {"id": made["id"], "object": "response", "deleted": True},
        )
        assert (await client.get(f"{RESPONSES}/{made['id']}")).status_code == 404

    async def test_log_probabilities_are_shown_where_they_are_asked_for(self, client: httpx.AsyncClient) -> None:
        """When it is made, and when it is read."""
        made = (await client.post(RESPONSES, json=request(max_output_tokens=2, include=LOGPROBS))).json()
        again = (await client.get(f"{RESPONSES}/{made['id']}")).json()
        asked = (await client.get(f"{RESPONSES}/{made['id']}", params={"include[]": LOGPROBS})).json()
        lengths = [len(each["output"][0]["content"][0]["logprobs"]) for each in (made, again, asked)]
        assert lengths == [2, 0, 2]

    async def test_a_stream_is_taken_up_behind_a_number(self, client: httpx.AsyncClient) -> None:
        """The same bytes again, from there on."""
        streamed = await client.post(RESPONSES, json=request(max_output_tokens=3, stream=True))
        frames = streamed.text.split("\n\n")
        response_id = json.loads(frames[0].split("data: ")[1])["response"]["id"]
        whole = await client.get(f"{RESPONSES}/{response_id}?stream=true")
        rest = await client.get(f"{RESPONSES}/{response_id}?stream=true&starting_after=2")
        assert whole.text.split("\n\n") == frames
        assert rest.text.split("\n\n") == frames[3:]

    @pytest.mark.compat(OF_RESPONSES, "`background` answers at once")
    async def test_in_the_background_it_answers_at_once(self, smollm2: Path) -> None:
        """Queued, and without a word of it."""
        hold = asyncio.Event()
        async with client_for(FakeEngine(hold=hold), smollm2) as client:
            made = await client.post(RESPONSES, json=request(background=True))
            assert (made.json()["status"], made.json()["output"]) == ("queued", [])
            hold.set()

    async def test_input_items_by_pages(self, client: httpx.AsyncClient) -> None:
        """The newest first, with ids of ours, and the page's ends named."""
        words = [{"role": "user", "content": word, "id": "msg_theirs"} for word in ("one", "two", "three")]
        made = (await client.post(RESPONSES, json=request(input=words, max_output_tokens=1))).json()
        page = (await client.get(f"{RESPONSES}/{made['id']}/input_items?limit=2")).json()
        assert [item["content"][0]["text"] for item in page["data"]] == ["three", "two"]
        assert (page["has_more"], page["first_id"], page["last_id"]) == (
            True,
            page["data"][0]["id"],
            page["data"][1]["id"],
        )
        assert len({item["id"] for item in page["data"]} - {"msg_theirs"}) == 2
        rest = await client.get(f"{RESPONSES}/{made['id']}/input_items?order=desc&after={page['last_id']}")
        assert [item["content"][0]["text"] for item in rest.json()["data"]] == ["one"]
