"""The routes over a fake engine: what is asked of it, what comes back, and how each wrong request is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontend.domain.errors import Internal, Unavailable
from tests.fakes.engine import FakeEngine
from tests.support.app import HEADERS, FakeHotState, client_for
from tests.support.compatibility import OF_ALL, OF_CHAT, OF_COMPLETIONS, OF_MODELS

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine, smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(engine, smollm2) as connected:
        yield connected


def chat(**more: object) -> dict[str, object]:
    return {"model": "hermes-2", "messages": USER, "max_tokens": 3} | more


def events(response: httpx.Response) -> list[Any]:
    """The JSON of each event; the last one must be [DONE]."""
    frames = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    return [json.loads(frame) for frame in frames[:-1]]


CALL_PATH = "messages[0].tool_calls[0].function"
SCHEMA_PATH = "response_format.json_schema"


def call(function: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}


CALLING = call({"name": "f", "arguments": "{}"})


def tool(name: str = "f", **more: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | more}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def json_format(**schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}


class TestWhatReachesTheEngine:
    @pytest.mark.compat(OF_CHAT, "`temperature`, `top_p`, penalties, `max_tokens`, `max_completion_tokens`")
    @pytest.mark.compat(
        OF_CHAT, "vLLM's `top_k`, `min_p`, `repetition_penalty`, `min_tokens`, `stop_token_ids`, `ignore_eos`"
    )
    async def test_every_parameter(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        """Each sampling parameter arrives under vLLM's name; the end of the turn is always a stop token."""
        response = await client.post(
            CHAT,
            json=chat(
                temperature=0.5,
                top_p=0.9,
                top_k=3,
                min_p=0.1,
                min_tokens=1,
                stop="END",
                seed=7,
                n=2,
                presence_penalty=0.1,
                frequency_penalty=-0.1,
                repetition_penalty=1.2,
                logit_bias={"5": -3},
                logprobs=True,
                top_logprobs=4,
                user="someone",
                metadata={"k": "v"},
            ),
        )
        assert response.status_code == 200
        sampling = engine.requests[0].sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 3, 0.1)
        assert (sampling.min_tokens, sampling.stop, sampling.seed, sampling.n) == (1, ["END"], 7, 2)
        assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.1, -0.1, 1.2)
        assert (sampling.logit_bias, sampling.logprobs, sampling.max_tokens) == ({5: -3.0}, 4, 3)
        assert sampling.stop_token_ids == [2]

    async def test_what_was_not_said_stays_unset(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        """Defaults are the engine's; max_tokens is what the window leaves, and 16 for a plain completion."""
        engine_max = 8192
        hold = asyncio.create_task(client.post(CHAT, json={"model": "hermes-2", "messages": USER, "stream": True}))
        while not engine.requests:
            await asyncio.sleep(0)
        hold.cancel()
        request = engine.requests[0]
        assert request.sampling.max_tokens == engine_max - len(request.prompt_ids)
        assert request.sampling.temperature is None
        assert (await client.post(COMPLETIONS, json={"model": "hermes-2", "prompt": "Hello"})).status_code == 200
        assert engine.requests[-1].sampling.max_tokens == 16

    @pytest.mark.compat(OF_CHAT, "messages of role `system`, `developer`, `user`, `assistant`; text parts")
    async def test_roles_and_parts(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        """developer is a system turn; text parts are one text; a refusal counts as what the assistant said."""
        variants = [
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
            ],
        ]
        for messages in variants:
            assert (await client.post(CHAT, json=chat(messages=messages))).status_code == 200
        assert engine.requests[0].prompt_ids == engine.requests[1].prompt_ids
        history = [*USER, {"role": "assistant", "content": None, "refusal": "No."}, *USER]
        plain = [*USER, {"role": "assistant", "content": "No."}, *USER]
        for messages in (history, plain):
            assert (await client.post(CHAT, json=chat(messages=messages))).status_code == 200
        assert engine.requests[2].prompt_ids == engine.requests[3].prompt_ids

    @pytest.mark.parametrize(
        ("header", "arrives"),
        [("00-" + "a" * 32 + "-" + "b" * 16 + "-01", True), ("nonsense", False), ("00-xyz", False)],
    )
    async def test_the_trace_context(
        self, client: httpx.AsyncClient, engine: FakeEngine, header: str, arrives: bool
    ) -> None:
        """A valid traceparent goes on to the engine; anything else counts as absent."""
        assert (await client.post(CHAT, json=chat(), headers={"traceparent": header})).status_code == 200
        assert engine.requests[0].traceparent == (header if arrives else None)

    async def test_long_prompts_are_tokenised_in_a_thread(self, smollm2: Path, engine: FakeEngine) -> None:
        """The ids do not depend on where they are made."""
        text = "A rather long message. " * 40
        for limit in ("0", "100000"):
            async with client_for(engine, smollm2, LIMITS_TOKENIZE_INLINE_CHARS=limit) as client:
                assert (
                    await client.post(CHAT, json=chat(messages=[{"role": "user", "content": text}]))
                ).status_code == 200
        assert engine.requests[0].prompt_ids == engine.requests[1].prompt_ids


class TestReplies:
    @pytest.mark.compat(OF_CHAT, "`usage` with `cached_tokens`")
    async def test_a_whole_reply(self, client: httpx.AsyncClient) -> None:
        """Text, reason, usage, the real model's name, and an id of at least 128 bits."""
        body = (await client.post(CHAT, json=chat())).json()
        assert body["choices"][0]["message"] == {
            "content": "Paris is the",
            "role": "assistant",
            "refusal": None,
            "annotations": [],
        }
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["model"] == "smollm2-135m"
        assert body["usage"]["completion_tokens"] == 3
        assert len(body["id"]) == len("chatcmpl-") + 32

    @pytest.mark.compat(OF_CHAT, "`stream`, `stream_options.include_usage`")
    async def test_a_stream(self, client: httpx.AsyncClient) -> None:
        """Role once per choice and first, in ascending index; one reason per choice; usage alone in the last chunk."""
        response = await client.post(CHAT, json=chat(stream=True, n=2, stream_options={"include_usage": True}))
        assert response.headers["content-type"].startswith("text/event-stream")
        chunks = events(response)
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert [(c["index"], c["delta"]) for c in choices[:2]] == [
            (0, {"role": "assistant", "content": ""}),
            (1, {"role": "assistant", "content": ""}),
        ]
        assert sum("role" in c["delta"] for c in choices) == 2
        for index in (0, 1):
            mine = [c for c in choices if c["index"] == index]
            assert "".join(c["delta"].get("content", "") for c in mine) == "Paris is the"
            assert [c["finish_reason"] for c in mine if c["finish_reason"]] == ["length"]
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 6)

    async def test_without_include_usage_there_is_none(self, client: httpx.AsyncClient) -> None:
        """No chunk has a usage field at all."""
        assert all("usage" not in chunk for chunk in events(await client.post(CHAT, json=chat(stream=True))))

    @pytest.mark.compat(OF_CHAT, "`logprobs`, `top_logprobs`", says="yes: the sampled token is the sampled one")
    async def test_log_probabilities_show_bytes(self, smollm2: Path) -> None:
        """A token that is part of a character shows its bytes; the sampled token is the sampled one."""
        async with client_for(FakeEngine(token_ids=(155,)), smollm2) as client:
            body = (await client.post(CHAT, json=chat(logprobs=True, top_logprobs=2))).json()
        first = body["choices"][0]["logprobs"]["content"][0]
        assert bytes(first["bytes"]).decode(errors="replace") == first["token"]
        assert [len(first["top_logprobs"]), first["logprob"]] == [2, -0.25]

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.compat(OF_COMPLETIONS, "`prompt`: a text; `stream`, `logprobs`")
    async def test_a_plain_completion(self, client: httpx.AsyncClient, stream: bool) -> None:
        """Text, offsets that count characters across chunks, and a usage."""
        response = await client.post(
            COMPLETIONS,
            json={"model": "hermes-2", "prompt": "Hello", "max_tokens": 3, "logprobs": 1, "stream": stream}
            | ({"stream_options": {"include_usage": True}} if stream else {}),
        )
        bodies = events(response) if stream else [response.json()]
        choices = [choice for body in bodies for choice in body["choices"]]
        assert "".join(c["text"] for c in choices) == "Paris is the"
        assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"]
        offsets = [offset for c in choices for offset in c["logprobs"]["text_offset"]]
        assert offsets == sorted(offsets)
        assert bodies[-1]["usage"]["completion_tokens"] == 3

    @pytest.mark.compat(OF_MODELS, "list, get")
    async def test_models(self, client: httpx.AsyncClient) -> None:
        """The real model and the alias, whose root is the real one."""
        body = (await client.get("/v1/models")).json()
        assert [(m["id"], m["root"]) for m in body["data"]] == [
            ("smollm2-135m", "smollm2-135m"),
            ("hermes-2", "smollm2-135m"),
        ]
        assert (await client.get("/v1/models/hermes-2")).json()["root"] == "smollm2-135m"

    @pytest.mark.compat(OF_ALL, "`x-request-id`")
    async def test_every_reply_has_a_request_id(self, client: httpx.AsyncClient) -> None:
        """The client's own if it is a plain one, else a new one; also on routes that do not exist."""
        assert (await client.get("/v1/models", headers={"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"
        for path in ("/v1/models", "/nowhere"):
            response = await client.get(path, headers={"x-request-id": "not plain\t"})
            assert response.headers["x-request-id"].startswith("req_")


WRONG: list[tuple[str, object, str | None]] = [
    ("not JSON", "{", None),
    ("NaN", '{"model": "hermes-2", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', None),
    (
        "infinite",
        '{"model": "hermes-2", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        "temperature",
    ),
    ("an array", [], None),
    ("nothing", {}, "model"),
    ("no messages", {"model": "hermes-2"}, "messages"),
    ("empty messages", chat(messages=[]), "messages"),
    ("a number as model", chat(model=3), "model"),
    ("a string as number", chat(temperature="1"), "temperature"),
    ("a number as bool", chat(stream=1), "stream"),
    ("temperature", chat(temperature=2.1), "temperature"),
    ("top_p 0", chat(top_p=0), "top_p"),
    ("top_k", chat(top_k=-2), "top_k"),
    ("min_p", chat(min_p=1.5), "min_p"),
    ("n 0", chat(n=0), "n"),
    ("n 1000", chat(n=1000), "n"),
    ("max_tokens 0", chat(max_tokens=0), "max_tokens"),
    ("max_tokens negative", chat(max_tokens=-5), "max_tokens"),
    ("max_completion_tokens negative", chat(max_completion_tokens=-5), "max_completion_tokens"),
    ("max_tokens beyond the window", chat(max_tokens=9000), "messages"),
    ("min_tokens over max_tokens", chat(min_tokens=4), "min_tokens"),
    ("five stops", chat(stop=["a", "b", "c", "d", "e"]), "stop"),
    ("an empty stop", chat(stop=""), "stop"),
    ("a long stop", chat(stop=["x" * 65]), "stop[0]"),
    ("penalty", chat(presence_penalty=3), "presence_penalty"),
    ("repetition_penalty", chat(repetition_penalty=0), "repetition_penalty"),
    ("bias on a word", chat(logit_bias={"x": 1}), "logit_bias"),
    ("bias on an unknown token", chat(logit_bias={"49152": 1}), "logit_bias"),
    ("bias too strong", chat(logit_bias={"1": 101}), "logit_bias"),
    ("301 biases", chat(logit_bias={str(i): 1 for i in range(301)}), "logit_bias"),
    ("top_logprobs alone", chat(top_logprobs=2), "top_logprobs"),
    ("21 top_logprobs", chat(logprobs=True, top_logprobs=21), "top_logprobs"),
    ("stream_options without stream", chat(stream_options={"include_usage": True}), "stream_options"),
    ("unknown stream option", chat(stream=True, stream_options={"x": 1}), "stream_options.x"),
    ("unknown field", chat(chat_template="{{ 1 }}"), "chat_template"),
    ("unknown message field", chat(messages=[{"role": "user", "content": "x", "y": 1}]), "messages[0].y"),
    ("unknown role", chat(messages=[{"role": "robot", "content": "x"}]), "messages[0].role"),
    (
        "a result without a call",
        chat(messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]),
        "messages[0].tool_call_id",
    ),
    ("a call without its result", chat(messages=[CALLING, *USER]), "messages[1]"),
    ("a last call without its result", chat(messages=[*USER, CALLING]), "messages"),
    ("arguments that are no text", chat(messages=[call({"name": "f", "arguments": {}})]), CALL_PATH + ".arguments"),
    ("a call of no function", chat(messages=[call({"arguments": "{}"})]), CALL_PATH + ".name"),
    ("no content", chat(messages=[{"role": "user"}]), "messages[0].content"),
    ("content null", chat(messages=[{"role": "user", "content": None}]), "messages[0].content"),
    ("assistant without content", chat(messages=[{"role": "assistant"}]), "messages[0].content"),
    ("no parts", chat(messages=[{"role": "user", "content": []}]), "messages[0].content"),
    (
        "an image",
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
        "messages[0].content[0].type",
    ),
    (
        "audio",
        chat(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
        "messages[0].content[0].type",
    ),
    ("tool_choice without tools", chat(tool_choice="required"), "tool_choice"),
    ("an unknown tool_choice", chat(tools=[tool()], tool_choice="any"), "tool_choice"),
    ("a choice that is no tool", chat(tools=[tool()], tool_choice=named("g")), "tool_choice"),
    ("two tools of a name", chat(tools=[tool(), tool()]), "tools[1].function.name"),
    ("a tool name with a space", chat(tools=[tool(name="a b")]), "tools[0].function.name"),
    ("a tool name with a line break", chat(tools=[tool(name="f\n")]), "tools[0].function.name"),
    ("min_tokens with one call at most", chat(min_tokens=2, tools=[tool()], parallel_tool_calls=False), "min_tokens"),
    ("a tool name as a tag", chat(tools=[tool(name="</tools>")]), "tools[0].function.name"),
    ("a custom tool", chat(tools=[{"type": "custom", "custom": {"name": "f"}}]), "tools[0].type"),
    ("parameters that are a list", chat(tools=[tool(parameters=[])]), "tools[0].function.parameters"),
    ("parameters that are a string", chat(tools=[tool(parameters={"type": "string"})]), "tools[0].function.parameters"),
    (
        "strict parameters that cannot be enforced",
        chat(tools=[tool(parameters={"properties": {"a": {"type": "number", "multipleOf": 2}}}, strict=True)]),
        "tools[0].function.parameters.properties.a.multipleOf",
    ),
    ("129 tools", chat(tools=[tool(name=f"f{i}") for i in range(129)]), "tools"),
    ("no such profile", chat(profile="pirate"), "profile"),
    ("ignore_eos with JSON", chat(ignore_eos=True, response_format={"type": "json_object"}), "ignore_eos"),
    ("min_tokens with a forced call", chat(min_tokens=2, tools=[tool()], tool_choice="required"), "min_tokens"),
    ("a stop token that is none", chat(stop_token_ids=[49152]), "stop_token_ids"),
    ("functions", chat(functions=[{"name": "f"}]), "functions"),
    ("an unknown format", chat(response_format={"type": "xml"}), "response_format.type"),
    (
        "a schema without a name",
        chat(response_format={"type": "json_schema", "json_schema": {}}),
        f"{SCHEMA_PATH}.name",
    ),
    ("a schema with a lookaround", chat(response_format=json_format(pattern="(?=a)")), f"{SCHEMA_PATH}.schema.pattern"),
    ("a schema of 17 KB", chat(response_format=json_format(const="x" * 17_000)), f"{SCHEMA_PATH}.schema"),
    ("a grammar", chat(guided_grammar="root ::= 'x'"), "guided_grammar"),
    ("a regular expression", chat(structured_outputs={"regex": "x"}), "structured_outputs"),
    ("audio out", chat(modalities=["text", "audio"]), "modalities"),
    ("seventeen metadata", chat(metadata={str(i): "x" for i in range(17)}), "metadata"),
    ("lone surrogate", '{"model": "hermes-2", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
    ("not UTF-8", b'{"model": "hermes-2", "messages": [{"role": "user", "content": "\xff"}]}', None),
    ("nested beyond reason", '{"model":' + "[" * 100_000, "model"),
]


class TestWrongRequests:
    @pytest.mark.parametrize(("body", "param"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
    @pytest.mark.compat(OF_ALL, "the error envelope with `param`, for every wrong request")
    @pytest.mark.compat(OF_CHAT, "images, audio and files in messages", says="refused: a text model")
    @pytest.mark.compat(OF_CHAT, "`functions`, `function_call` (deprecated by OpenAI)", says="refused: use `tools`")
    @pytest.mark.compat(
        OF_CHAT, "`audio`, `prediction`, `web_search_options`", says="refused, unless they ask for nothing"
    )
    @pytest.mark.compat(OF_ALL, "chat templates, grammars, regular expressions from a client", says="refused")
    async def test_the_envelope_names_the_parameter(
        self, client: httpx.AsyncClient, engine: FakeEngine, body: object, param: str | None
    ) -> None:
        """400 in OpenAI's envelope with `param`, before the engine is asked for anything."""
        content = body if isinstance(body, (str, bytes)) else json.dumps(body)
        response = await client.post(CHAT, content=content)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert error["message"]
        assert engine.requests == []

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"prompt": "x"}, "model"),
            ({"model": "hermes-2"}, "prompt"),
            ({"model": "hermes-2", "prompt": []}, "prompt"),
            ({"model": "hermes-2", "prompt": ""}, "prompt"),
            ({"model": "hermes-2", "prompt": ["x", ""]}, "prompt"),
            ({"model": "hermes-2", "prompt": ["x", 1]}, "prompt"),
            ({"model": "hermes-2", "prompt": [[1], 2]}, "prompt"),
            ({"model": "hermes-2", "prompt": [1, 49152]}, "prompt"),
            ({"model": "hermes-2", "prompt": [-1]}, "prompt"),
            ({"model": "hermes-2", "prompt": [[]]}, "prompt"),
            ({"model": "hermes-2", "prompt": ["x"] * 65}, "prompt"),
            ({"model": "hermes-2", "prompt": "x", "tools": []}, "tools"),
            ({"model": "hermes-2", "prompt": "x", "suffix": "y"}, "suffix"),
            ({"model": "hermes-2", "prompt": "x", "best_of": 2}, "best_of"),
            ({"model": "hermes-2", "prompt": "x", "logprobs": 6}, "logprobs"),
            ({"model": "hermes-2", "prompt": "x " * 9000}, "prompt"),
        ],
    )
    @pytest.mark.compat(OF_COMPLETIONS, "`suffix`, `best_of`", says="refused, unless they ask for nothing")
    async def test_completions_too(self, client: httpx.AsyncClient, body: dict[str, object], param: str) -> None:
        """The same envelope on the other route."""
        response = await client.post(COMPLETIONS, json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)

    @pytest.mark.compat(OF_ALL, "an unknown model", says="404 `model_not_found`")
    async def test_an_unknown_model(self, client: httpx.AsyncClient) -> None:
        """404 with the code that the SDK's users look for, on every route that names a model."""
        for response in (await client.post(CHAT, json=chat(model="gpt-4o")), await client.get("/v1/models/gpt%2F4o")):
            assert response.status_code == 404
            assert (response.json()["error"]["code"], response.json()["error"]["param"]) == ("model_not_found", "model")

    @pytest.mark.compat(OF_ALL, "a prompt beyond the window", says="400 `context_length_exceeded`")
    async def test_too_long_a_prompt(self, client: httpx.AsyncClient) -> None:
        """400 context_length_exceeded, with the arithmetic."""
        response = await client.post(CHAT, json=chat(messages=[{"role": "user", "content": "word " * 9000}]))
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "8192" in response.json()["error"]["message"]

    @pytest.mark.compat(OF_ALL, "a body beyond the limit", says="413")
    async def test_too_large_a_body(self, client: httpx.AsyncClient) -> None:
        """413 in the envelope."""
        response = await client.post(CHAT, content=b"x" * (4 * 2**20 + 1))
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")

    async def test_no_body_at_all(self, client: httpx.AsyncClient) -> None:
        """400, and it says what is missing."""
        response = await client.post(CHAT)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
        assert "no body" in response.json()["error"]["message"]

    async def test_a_wrong_method_is_told_the_right_ones(self, client: httpx.AsyncClient) -> None:
        """405 has an Allow header."""
        response = await client.delete(CHAT)
        assert set(response.headers["allow"].split(", ")) == {"GET", "OPTIONS", "POST"}

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/nowhere", 404, "unknown_url"),
            ("PUT", CHAT, 405, "method_not_allowed"),
            ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ],
    )
    async def test_routes_and_methods(
        self, client: httpx.AsyncClient, method: str, path: str, status: int, code: str
    ) -> None:
        """What the router refuses leaves in the same envelope."""
        response = await client.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)

    @pytest.mark.compat(
        OF_CHAT,
        "`service_tier`, `prompt_cache_key`, `safety_identifier`, `reasoning_effort`, `verbosity`, `user`, `metadata`",
        says="accepted, change nothing",
    )
    async def test_values_that_ask_for_nothing_are_taken(self, client: httpx.AsyncClient) -> None:
        """Clients send defaults of features that they do not use."""
        harmless = chat(
            tools=[],
            tool_choice="auto",
            response_format={"type": "text"},
            modalities=["text"],
            store=False,
            service_tier="auto",
            parallel_tool_calls=True,
            reasoning_effort="low",
            prompt_cache_key="k",
            safety_identifier="s",
        )
        assert (await client.post(CHAT, json=harmless)).status_code == 200


class TestKeys:
    @pytest.mark.parametrize(
        "header", [None, "", "Bearer", "Bearer ", "Basic dGVzdA==", "Bearer wrong-key-0123456789-0123456789"]
    )
    @pytest.mark.compat(OF_ALL, "`Authorization: Bearer`")
    async def test_everything_but_health_needs_the_key(self, client: httpx.AsyncClient, header: str | None) -> None:
        """401 in the envelope on every route of the application but the health probes."""
        headers = {} if header is None else {"authorization": header}
        client.headers.pop("authorization")
        for method, path in (
            ("POST", CHAT),
            ("POST", COMPLETIONS),
            ("GET", "/v1/models"),
            ("GET", "/metrics"),
            ("GET", "/schema/openapi.json"),
        ):
            response = await client.request(method, path, headers=headers, json=chat() if method == "POST" else None)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key"), path
        for path in ("/health/live", "/health/ready", "/health/startup"):
            assert (await client.get(path, headers=headers)).status_code == 200

    async def test_the_scheme_is_case_insensitive(self, client: httpx.AsyncClient) -> None:
        """As HTTP has it."""
        assert (
            await client.get(
                "/v1/models", headers={"authorization": HEADERS["authorization"].replace("Bearer", "bearer")}
            )
        ).status_code == 200


class TestFailures:
    async def test_before_the_first_token_the_status_tells(self, smollm2: Path) -> None:
        """A stream that fails early is a 503 with Retry-After, not a 200 that breaks."""
        async with client_for(FakeEngine(error=Unavailable("gone", retry_after_s=1.5)), smollm2) as client:
            for stream in (True, False):
                response = await client.post(CHAT, json=chat(stream=stream))
                assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
                assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("2", "1500")

    async def test_after_the_first_token_an_event_tells(self, smollm2: Path) -> None:
        """What was said stays; then an error event in the envelope, and the end."""
        async with client_for(FakeEngine(error=Unavailable("gone"), fail_after=2), smollm2) as client:
            chunks = events(await client.post(CHAT, json=chat(stream=True)))
        assert "".join(c["delta"].get("content", "") for chunk in chunks[:-1] for c in chunk["choices"]) == "Paris is"
        assert chunks[-1]["error"]["code"] == "engine_unavailable"

    async def test_a_defect_shows_nothing_of_itself(self, smollm2: Path) -> None:
        """500 with a sentence; what went wrong is in the log."""
        async with client_for(FakeEngine(error=Internal("secret detail")), smollm2) as client:
            response = await client.post(CHAT, json=chat())
        assert response.status_code == 500

    async def test_health(self, smollm2: Path) -> None:
        """An engine away: not ready, but alive. Valkey away: ready, and said."""
        engine = FakeEngine()
        engine.healthy = False
        async with client_for(engine, smollm2, FakeHotState(alive=False)) as client:
            assert (await client.get("/health/live")).status_code == 200
            assert (await client.get("/health/startup")).status_code == 503
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()) == (
                503,
                {"status": "not_ready", "engine": "unavailable", "sql": "ok", "valkey": "degraded"},
            )
            assert 'hermes2_dependency_up{dependency="engine"} 0' in (await client.get("/metrics")).text
        async with client_for(FakeEngine(), smollm2, FakeHotState(alive=False)) as client:
            ready = await client.get("/health/ready")
            assert ready.status_code == 200
            assert ready.json() == {"status": "ready", "engine": "ok", "sql": "ok", "valkey": "degraded"}
            assert 'hermes2_dependency_up{dependency="engine"} 1' in (await client.get("/metrics")).text
