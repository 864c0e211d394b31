"""What the tests of /v1/responses ask for, and how they check what comes: against OpenAI's specification and OpenResponses."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai

from tests.support.app import HEADERS
from tests.support.spec import validator

RESPONSES = "/v1/responses"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
CALL = ['<tool_call>\n{"name": "get_weather", "arguments": ', '{"city": "', 'Par', 'is"}', "}\n</tool_call>"]  # fmt: skip
SECOND = ["\n<tool", '_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>']
STRICT = {"format": {"type": "json_schema", "name": "city", "schema": PARAMETERS, "strict": True}}
TEXT = ["Paris", " is", " the", " capital", "."]
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
SEARCH_STEPS = ("in_progress", "searching", "completed")
ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]}
EVERYTHING = {
    "instructions": "Be brief.",
    "tools": [WEATHER, {"type": "function", "name": "nothing"}],
    "tool_choice": ALLOWED,
    "parallel_tool_calls": False,
    "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "seed": 7,
    "presence_penalty": 0.1,
    "frequency_penalty": -0.1,
    "max_output_tokens": 32,
    "max_tool_calls": 2,
    "truncation": "auto",
    "metadata": {"topic": "travel"},
    "safety_identifier": "someone",
    "prompt_cache_key": "key",
    "user": "someone",
}
FEATURES: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "text": (TEXT, {}),
    "tool-call": (CALL, {"tools": [WEATHER]}),
    "tool-calls": (["I shall ask.\n", *CALL, *SECOND], {"tools": [WEATHER]}),
    "forced-call": (CALL, {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}),
    "structured-output": (['{"city"', ": ", '"Paris"}'], {"text": STRICT}),
    "logprobs": (TEXT[:2], LOGPROBS),
    "truncation": (TEXT, {"max_output_tokens": 2}),
    "truncated-call": (CALL, {"tools": [WEATHER], "max_output_tokens": 3}),
    "every-parameter": (TEXT, EVERYTHING),
    "background": (TEXT, {"background": True}),
}


def body(more: dict[str, Any]) -> dict[str, Any]:
    return {"model": "hermes-2", "input": "Where?"} | more


async def within(client: httpx.AsyncClient, name: str, more: dict[str, Any]) -> dict[str, Any]:
    """The request; that of every parameter belongs to a conversation."""
    if name != "every-parameter":
        return body(more)
    conversation = (await client.post("/v1/conversations", json={})).json()
    return body(more) | {"conversation": {"id": conversation["id"]}}


@asynccontextmanager
async def sdk_over(transport: httpx.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK, which validates what it gets."""
    async with openai.AsyncOpenAI(
        base_url="http://hermes2/v1",
        api_key=HEADERS["authorization"].removeprefix("Bearer "),
        http_client=transport,  # type: ignore[arg-type]  # the SDK takes httpx as well as its successor
        max_retries=0,
        _strict_response_validation=True,
    ) as sdk:
        yield sdk


def events(transcript: str) -> list[Any]:
    """The JSON of each event, whose `event:` line says the same; the last one must be [DONE]."""
    *frames, done, rest = transcript.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    result = []
    for frame in frames:
        name, data = frame.split("\n")
        result.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {result[-1]['type']}"
    return result


def openai_name(event: str, spec: dict[str, Any]) -> str:
    """The member of ResponseStreamEvent whose type it is: to try all 53 takes long."""
    schemas = spec["components"]["schemas"]
    members: list[str] = [each["$ref"].rsplit("/", 1)[1] for each in schemas["ResponseStreamEvent"]["anyOf"]]
    (name,) = (name for name in members if schemas[name]["properties"]["type"]["enum"] == [event])
    return name


def open_responses_name(event: str) -> str:
    """response.output_item.added: ResponseOutputItemAddedStreamingEvent."""
    words = re.split(r"[._]", event)
    return "".join(word.capitalize() for word in words) + "StreamingEvent"


def of_openai(value: dict[str, Any]) -> dict[str, Any]:
    """The one departure, which OpenAI's own service makes too: there is no usage before the end, and OpenResponses wants
    that said."""
    if isinstance(response := value.get("response"), dict):
        return value | {"response": of_openai(response)}
    return {key: each for key, each in value.items() if not (key == "usage" and each is None)}


def of_open_responses(value: Any) -> Any:
    """The one departure: it wants null where OpenAI wants the schema that the answer is of."""
    if isinstance(value, dict):
        shown = {key: of_open_responses(each) for key, each in value.items()}
        return shown | {"schema": None} if value.get("type") == "json_schema" else shown
    return [of_open_responses(each) for each in value] if isinstance(value, list) else value


class Specifications:
    """Both, for events and for bodies."""

    def __init__(self, of_openai: dict[str, Any], of_open_responses: dict[str, Any] | None) -> None:
        """None: what is checked is of OpenAI's alone, as the tools that a server uses itself."""
        self._of_openai = of_openai
        self._of_open_responses = of_open_responses

    def check_event(self, event: dict[str, Any]) -> None:
        name = openai_name(event["type"], self._of_openai)
        validator(self._of_openai, name).validate(of_openai(event))
        if self._of_open_responses is None:
            return
        name = open_responses_name(event["type"])
        validator(self._of_open_responses, name).validate(of_open_responses(event))

    def check(self, response: dict[str, Any]) -> None:
        validator(self._of_openai, "Response").validate(of_openai(response))
        if self._of_open_responses is None:
            return
        validator(self._of_open_responses, "ResponseResource").validate(of_open_responses(response))


def check_stream(told: list[Any], specifications: Specifications) -> None:
    """Numbered without gaps; what the deltas, the done events and the final items say is the same."""
    for event in told:
        specifications.check_event(event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert (told[0]["type"], told[0]["response"]["output"]) == ("response.created", [])
    done = {event["output_index"]: event["item"] for event in told if event["type"] == "response.output_item.done"}
    for index, item in done.items():
        mine = [event for event in told if event.get("output_index") == index]
        said = "".join(event["delta"] for event in mine if "delta" in event)
        if item["type"] == "function_call":
            (whole,) = (event["arguments"] for event in mine if event["type"].endswith("arguments.done"))
            assert said == whole == item["arguments"]
        elif item["type"] == "file_search_call":
            steps = ["output_item.added", *(f"file_search_call.{step}" for step in SEARCH_STEPS), "output_item.done"]
            assert [event["type"] for event in mine] == [f"response.{step}" for step in steps]
        else:
            (text,) = (event["text"] for event in mine if event["type"] == "response.output_text.done")
            (part,) = (event["part"] for event in mine if event["type"] == "response.content_part.done")
            assert said == text == part["text"] == item["content"][0]["text"]
            assert part == item["content"][0]
            added = [event for event in mine if event["type"] == "response.output_text.annotation.added"]
            assert [event["annotation_index"] for event in added] == list(range(len(added)))
            assert [event["annotation"] for event in added] == part["annotations"]
    if told[-1]["type"] == "response.completed":
        assert told[-1]["response"]["output"] == [done[index] for index in sorted(done)]
