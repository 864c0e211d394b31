"""Each feature of the stateless API, byte for byte: its stream is a golden file, and every part of it OpenAI's own.

HERMES2_WRITE_GOLDEN=1 writes the files anew; what changed is then in the diff.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from frontend.domain.errors import ServiceError, Unavailable
from tests.fakes.engine import FakeEngine
from tests.support.app import HEADERS, client_for
from tests.support.compatibility import OF_CHAT
from tests.support.spec import validator

GOLDEN = Path(__file__).parents[1] / "golden"
CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = ['<tool_call>\n{"name": "get_weather", "arguments": ', '{"city": "', 'Par', 'is"}', "}\n</tool_call>"]  # fmt: skip
SECOND = ["\n<tool", '_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>']
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
TEXT = ["Paris", " is", " the", " capital", "."]
FEATURES: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "text": (TEXT, {}),
    "usage": (TEXT, {"stream_options": {"include_usage": True}}),
    "tool-call": (CALL, {"tools": [WEATHER]}),
    "tool-calls": (["I shall ask.\n", *CALL, *SECOND], {"tools": [WEATHER]}),
    "forced-call": (CALL, {"tools": [WEATHER], "tool_choice": "required"}),
    "structured-output": (['{"city"', ": ", '"Paris"}'], {"response_format": STRICT}),
    "two-choices": (TEXT, {"n": 2}),
    "logprobs": (TEXT[:2], {"logprobs": True, "top_logprobs": 2}),
    "truncation": (TEXT, {"max_tokens": 2}),
    "truncated-call": (CALL, {"tools": [WEATHER], "max_tokens": 3}),
}
FAILURES: dict[str, tuple[ServiceError, int, int]] = {
    "error-before-the-first-token": (Unavailable("The engine is not available."), 0, 503),
    "error-after-the-first-token": (Unavailable("The engine is not available."), 1, 200),
}


def body(more: dict[str, Any]) -> dict[str, Any]:
    return {"model": "hermes-2", "messages": [{"role": "user", "content": "Where?"}]} | more


def whole(more: dict[str, Any]) -> dict[str, Any]:
    return body({name: value for name, value in more.items() if name != "stream_options"})


def settled(text: str) -> str:
    """A transcript without what differs from run to run."""
    text = re.sub(r'"created":\d+', '"created":0', text)
    return re.sub(r"(chatcmpl-|call_)[0-9a-f]{32}", r"\g<1>…", text)


def compare(name: str, response: httpx.Response) -> None:
    transcript = settled(f"HTTP {response.status_code}\n\n{response.text}")
    path = GOLDEN / f"{name}.sse"
    if os.environ.get("HERMES2_WRITE_GOLDEN"):
        path.write_text(transcript)
    assert transcript == path.read_text()


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.compat(
    OF_CHAT,
    "streams: text, calls, structured output, `n`, `logprobs`, usage, truncation",
    says="yes: golden transcripts",
)
async def test_the_stream_is_the_golden_one(name: str, smollm2: Path) -> None:
    """Every byte of it, but for ids and times."""
    says, more = FEATURES[name]
    async with client_for(FakeEngine(says=says), smollm2) as client:
        compare(name, await client.post(CHAT, json=body(more) | {"stream": True}))


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.compat(OF_CHAT, "streams: an error before and after the first token", says="yes: golden transcripts")
async def test_a_failing_stream_is_the_golden_one(name: str, smollm2: Path) -> None:
    """Before the first token an honest status; after it an error event, and an end."""
    error, after, status = FAILURES[name]
    async with client_for(FakeEngine(error=error, fail_after=after, says=TEXT), smollm2) as client:
        response = await client.post(CHAT, json=body({"stream": True}))
        assert response.status_code == status
        compare(name, response)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.compat(OF_CHAT, "every reply and chunk is of OpenAI's specification")
async def test_every_body_is_of_the_specification(name: str, smollm2: Path, openai_spec: dict[str, Any]) -> None:
    """The whole reply, and each chunk of the stream."""
    says, more = FEATURES[name]
    async with client_for(FakeEngine(says=says), smollm2) as client:
        reply = await client.post(CHAT, json=whole(more))
        validator(openai_spec, "CreateChatCompletionResponse").validate(reply.json())
        chunk = validator(openai_spec, "CreateChatCompletionStreamResponse")
        response = await client.post(CHAT, json=body(more) | {"stream": True})
    frames = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: {")]
    assert frames
    for frame in frames:
        chunk.validate(json.loads(frame))


@pytest.mark.parametrize("name", [name for name in FEATURES if not name.startswith("truncat")])
@pytest.mark.compat(OF_CHAT, "the SDK's strict validation")
async def test_the_strict_sdk_reads_the_same_twice(name: str, smollm2: Path) -> None:
    """OpenAI's SDK, validating, puts the stream together to what it gets as a whole (of a truncated one it raises)."""
    says, more = FEATURES[name]
    async with (
        client_for(FakeEngine(says=says), smollm2) as transport,
        openai.AsyncOpenAI(
            base_url="http://hermes2/v1",
            api_key=HEADERS["authorization"].removeprefix("Bearer "),
            http_client=transport,  # type: ignore[arg-type]  # the SDK takes httpx as well as its successor
            max_retries=0,
            _strict_response_validation=True,
        ) as sdk,
    ):
        reply = await sdk.chat.completions.create(**whole(more))
        async with sdk.chat.completions.stream(**body(more)) as stream:
            streamed = await stream.get_final_completion()
    for one, other in zip(reply.choices, streamed.choices, strict=True):
        assert (one.message.content or "") == (other.message.content or "")
        assert one.finish_reason == other.finish_reason
        calls = [[(c.function.name, c.function.arguments) for c in m.message.tool_calls or ()] for m in (one, other)]
        assert calls[0] == calls[1]
        assert (one.logprobs is None) == (other.logprobs is None)
