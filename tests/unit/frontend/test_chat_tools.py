"""Tools, structured output and profiles over a fake engine: what is asked of it, and what its text becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.compatibility import OF_CHAT

URL = "/v1/chat/completions"
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str, **more: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS} | more}


WEATHER, TIME = tool("get_weather"), tool("get_time")
SAYS_CALL = ["<tool", "_call>\n", '{"name": "get_wea', 'ther", "arguments": {"city"', ': "Paris"}', "}\n</tool_call>"]
SAYS_TWO = ["Let me see.\n", *SAYS_CALL, "\n", '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>']


def tool_of(parameters: dict[str, Any], *, strict: bool = False) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": strict}}


def text_of(engine: FakeEngine, model: Path) -> str:
    """The prompt that reached the engine, control tokens and all."""
    files = next(p.parent for p in model.rglob("tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
    return str(tokenizer.decode(list(engine.requests[-1].prompt_ids), skip_special_tokens=False))


async def ask(engine: FakeEngine, model: Path, status: int = 200, **more: object) -> Any:
    async with client_for(engine, model) as client:
        response = await client.post(URL, json={"model": "hermes-2", "messages": [QUESTION]} | more)
        assert response.status_code == status, response.text
        return response.json()


async def stream(engine: FakeEngine, model: Path, **more: object) -> list[Any]:
    async with client_for(engine, model) as client:
        body = {"model": "hermes-2", "messages": [QUESTION], "stream": True} | more
        response = await client.post(URL, json=body)
    return events(response)


def events(response: httpx.Response) -> list[Any]:
    frames = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    return [json.loads(frame) for frame in frames[:-1]]


class TestTools:
    @pytest.mark.compat(OF_CHAT, "`tools`: functions, in Hermes-2's own format")
    async def test_the_model_is_told_of_them(self, smollm2: Path) -> None:
        """In Hermes-2's words, with what the client sent, in a system turn before everything else."""
        engine = FakeEngine()
        await ask(engine, smollm2, tools=[WEATHER, TIME], max_tokens=1)
        prompt = text_of(engine, smollm2)
        assert prompt.startswith("<|im_start|>system\nYou are a function calling AI model.")
        assert "\n".join(json.dumps(each) for each in (WEATHER, TIME)) in prompt
        assert prompt.count("<tools>") == 2  # once in the sentence that explains it
        assert prompt.endswith("<|im_start|>user\nWhat is the weather in Paris?<|im_end|>\n<|im_start|>assistant\n")

    @pytest.mark.compat(OF_CHAT, "`tools`: a call, arguments as generated, `finish_reason: tool_calls`")
    async def test_a_call(self, smollm2: Path) -> None:
        """A whole reply: id, name, arguments as generated, null as content, `tool_calls` as reason."""
        reply = await ask(FakeEngine(says=SAYS_CALL), smollm2, tools=[WEATHER])
        (choice,) = reply["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert choice["message"]["content"] is None
        assert (choice["finish_reason"], call["type"]) == ("tool_calls", "function")
        assert call["id"].startswith("call_")
        assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}

    @pytest.mark.compat(OF_CHAT, "`tools`: several calls in a turn, streamed")
    async def test_several_calls_stream(self, smollm2: Path) -> None:
        """Content first; an index on every delta; id, type and name in the first of each call only."""
        chunks = await stream(FakeEngine(says=SAYS_TWO), smollm2, tools=[WEATHER, TIME])
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert "".join(delta.get("content") or "" for delta in deltas) == "Let me see."
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        first = [call for call in calls if "id" in call]
        assert [(c["index"], c["type"], c["function"]["name"]) for c in first] == [
            (0, "function", "get_weather"),
            (1, "function", "get_time"),
        ]
        assert all("name" not in call["function"] and "type" not in call for call in calls if call not in first)
        arguments = ["".join(c["function"]["arguments"] for c in calls if c["index"] == index) for index in (0, 1)]
        assert arguments == ['{"city": "Paris"}', "{}"]
        assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"][0]["finish_reason"]] == ["tool_calls"]

    @pytest.mark.compat(OF_CHAT, "`tools`: a truncated call", says="yes: `length`")
    async def test_a_call_that_is_cut_says_so(self, smollm2: Path) -> None:
        """`length`, with the arguments as far as they came."""
        reply = await ask(FakeEngine(says=SAYS_CALL), smollm2, tools=[WEATHER], max_tokens=4)
        (choice,) = reply["choices"]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city"'

    async def test_a_call_that_a_stop_string_cut_is_no_call_to_make(self, smollm2: Path) -> None:
        """`stop`, not `tool_calls`: its arguments are no JSON."""
        reply = await ask(FakeEngine(says=SAYS_CALL[:4]), smollm2, tools=[WEATHER], stop="Paris")
        assert reply["choices"][0]["finish_reason"] == "stop"

    @pytest.mark.compat(OF_CHAT, "`tool_choice`: none")
    async def test_without_tools_tags_are_text(self, smollm2: Path) -> None:
        """Nothing is parsed that was not asked for: a model may explain its own format."""
        asked: list[dict[str, Any]] = [{}, {"tools": [WEATHER], "tool_choice": "none"}, {"tools": []}]
        for more in asked:
            engine = FakeEngine(says=SAYS_CALL)
            reply = await ask(engine, smollm2, **more)
            assert reply["choices"][0]["message"]["content"] == "".join(SAYS_CALL)
            assert reply["choices"][0]["finish_reason"] == "stop"
            assert engine.requests[0].constraint is None

    @pytest.mark.parametrize(
        ("choice", "callable_", "required", "several"),
        [
            ({}, ["get_weather", "get_time"], False, True),
            ({"tool_choice": "auto", "parallel_tool_calls": False}, ["get_weather", "get_time"], False, False),
            ({"tool_choice": "required"}, ["get_weather", "get_time"], True, True),
            ({"tool_choice": {"type": "function", "function": {"name": "get_time"}}}, ["get_time"], True, False),
            (
                {
                    "tool_choice": {
                        "type": "allowed_tools",
                        "allowed_tools": {
                            "mode": "required",
                            "tools": [{"type": "function", "function": {"name": "get_time"}}],
                        },
                    }
                },
                ["get_time"],
                True,
                True,
            ),
        ],
    )
    @pytest.mark.compat(OF_CHAT, "`tool_choice`: auto, required, a named function, allowed_tools")
    @pytest.mark.compat(OF_CHAT, "`parallel_tool_calls`")
    async def test_what_may_be_called_is_enforced(
        self, smollm2: Path, choice: dict[str, Any], callable_: list[str], required: bool, several: bool
    ) -> None:
        """The engine is held to the tools of the choice; the prompt names them all, so that its cache stays."""
        engine = FakeEngine(says=SAYS_CALL)
        await ask(engine, smollm2, tools=[WEATHER, TIME], **choice)
        constraint = engine.requests[0].constraint
        assert constraint is not None
        assert constraint.tools is not None
        assert [each.name for each in constraint.tools.callable] == callable_
        assert (constraint.tools.required, constraint.tools.several) == (required, several)
        assert '"name": "get_weather"' in text_of(engine, smollm2)

    @pytest.mark.compat(OF_CHAT, "messages of role `tool`")
    async def test_a_round_trip_comes_back_as_it_was_generated(self, smollm2: Path) -> None:
        """The call that is sent back is rendered byte for byte as the model wrote it, so that its prefix is cached."""
        engine = FakeEngine(says=SAYS_CALL)
        reply = await ask(engine, smollm2, tools=[WEATHER])
        answer = reply["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": 'sunny, "21" degrees'}
        await ask(engine, smollm2, tools=[WEATHER], messages=[QUESTION, answer, result])
        assert text_of(engine, smollm2).endswith(
            "<|im_start|>assistant\n" + "".join(SAYS_CALL) + "<|im_end|>\n"
            '<|im_start|>tool\n<tool_response>\n{"name": "get_weather", "content": "sunny, \\"21\\" degrees"}\n'
            "</tool_response><|im_end|>\n<|im_start|>assistant\n"
        )

    @pytest.mark.parametrize("parameters", [{"$ref": "#/$defs/S", "$defs": {"S": {"type": "string"}}}, {"const": "x"}])
    async def test_arguments_are_an_object(self, smollm2: Path, parameters: dict[str, Any]) -> None:
        """Whatever the schema says: refused if strict, an object of any kind if not."""
        engine = FakeEngine(says=["x"])
        await ask(engine, smollm2, tools=[tool_of(parameters)])
        constraint = engine.requests[0].constraint
        assert constraint is not None
        assert constraint.tools is not None
        assert constraint.tools.callable[0].enforced == {"type": "object"}
        await ask(engine, smollm2, 400, tools=[tool_of(parameters, strict=True)])

    async def test_a_tool_without_parameters_takes_none(self, smollm2: Path) -> None:
        """As OpenAI defines it: an empty object, and nothing else."""
        engine = FakeEngine(says=["x"])
        await ask(engine, smollm2, tools=[{"type": "function", "function": {"name": "now"}}])
        constraint = engine.requests[0].constraint
        assert constraint is not None
        assert constraint.tools is not None
        assert constraint.tools.callable[0].enforced == {
            "type": "object",
            "properties": {},
            "additionalProperties": False,
        }


class TestStructuredOutput:
    @pytest.mark.compat(OF_CHAT, "`response_format`: json_schema", says="yes: enforced by guided decoding")
    async def test_a_schema_is_enforced_and_told(self, smollm2: Path) -> None:
        """The engine gets the schema, the model Hermes-2's JSON mode prompt with it."""
        engine = FakeEngine(says=['{"city": ', '"Paris"}'])
        schema = {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}}
        reply = await ask(
            engine,
            smollm2,
            response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": True}},
        )
        assert json.loads(reply["choices"][0]["message"]["content"]) == {"city": "Paris"}
        constraint = engine.requests[0].constraint
        assert constraint is not None
        assert constraint.json_schema == {"type": "object", "properties": {"city": {"type": "string"}}}
        assert f"<schema>\n{json.dumps(schema)}\n</schema>" in text_of(engine, smollm2)

    @pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "c"}}])
    @pytest.mark.compat(OF_CHAT, "`response_format`: json_object", says="yes: enforced by guided decoding")
    async def test_an_object_of_any_kind(self, smollm2: Path, form: dict[str, object]) -> None:
        """json_object, and a schema that is not given."""
        engine = FakeEngine(says=["{}"])
        await ask(engine, smollm2, response_format=form)
        constraint = engine.requests[0].constraint
        assert constraint is not None
        assert constraint.json_schema == {"type": "object"}

    @pytest.mark.compat(OF_CHAT, "`response_format`: text")
    async def test_text_is_text(self, smollm2: Path) -> None:
        """The format that asks for nothing."""
        engine = FakeEngine(says=["x"])
        await ask(engine, smollm2, response_format={"type": "text"})
        assert engine.requests[0].constraint is None


class TestProfiles:
    @pytest.mark.compat(OF_CHAT, "`profile`: conversation profiles", says="ours")
    async def test_a_profile_speaks_where_the_request_is_silent(self, smollm2: Path) -> None:
        """Its system turn comes before the client's own; what the request says wins."""
        engine = FakeEngine(says=["x"])
        system = {"role": "system", "content": "Speak French."}
        await ask(engine, smollm2, profile="concise", messages=[system, QUESTION], top_p=0.5)
        sampling = engine.requests[0].sampling
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.3, 0.5, 256)
        prompt = text_of(engine, smollm2)
        assert prompt.index("Answer in one or two short sentences") < prompt.index("Speak French.")

    async def test_stop_rules_add_up(self, smollm2: Path) -> None:
        """Those of the profile and those of the request."""
        engine = FakeEngine(says=["x"])
        await ask(engine, smollm2, profile="extract@1", stop=["END"])
        assert list(engine.requests[0].sampling.stop) == ["END", "\n"]

    async def test_stop_rules_do_not_cut_json(self, smollm2: Path) -> None:
        """A line break inside JSON is no end."""
        engine = FakeEngine(says=["{}"])
        await ask(engine, smollm2, profile="extract", response_format={"type": "json_object"})
        assert list(engine.requests[0].sampling.stop) == []

    async def test_they_are_listed(self, smollm2: Path) -> None:
        """With name, version and what they are for."""
        async with client_for(FakeEngine(), smollm2) as client:
            body = (await client.get("/v1/profiles")).json()
        assert {"default@1", "concise@1", "extract@1", "agent@1"} == {profile["id"] for profile in body["data"]}
        assert all(profile["description"] for profile in body["data"])

    async def test_tool_style(self, smollm2: Path) -> None:
        """How the model is told of its tools is part of a profile."""
        engine = FakeEngine(says=["x"])
        await ask(engine, smollm2, profile="agent", tools=[WEATHER])
        assert text_of(engine, smollm2).startswith("<|im_start|>system\nYou can call these functions:\n<tools>\n")
