"""Every body and every chunk validates against OpenAI's own specification (skipped where it is not at hand)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from frontend.domain.errors import Unavailable
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.spec import validator

USER = [{"role": "user", "content": "Hello"}]
VARIANTS: list[dict[str, object]] = [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}]


@pytest.fixture
async def client(smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(FakeEngine(), smollm2) as connected:
        yield connected


def chunks(response: httpx.Response) -> list[Any]:
    frames = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: {")]
    assert frames
    return [json.loads(frame) for frame in frames]


@pytest.mark.parametrize("more", VARIANTS)
async def test_chat(client: httpx.AsyncClient, openai_spec: dict[str, Any], more: dict[str, object]) -> None:
    """A chat completion and each of its chunks."""
    body = {"model": "hermes-2", "messages": USER, "max_tokens": 3} | more
    whole = validator(openai_spec, "CreateChatCompletionResponse")
    whole.validate((await client.post("/v1/chat/completions", json=body)).json())
    chunk = validator(openai_spec, "CreateChatCompletionStreamResponse")
    for usage in (True, False):
        stream = body | {"stream": True} | ({"stream_options": {"include_usage": True}} if usage else {})
        for each in chunks(await client.post("/v1/chat/completions", json=stream)):
            chunk.validate(each)


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"logprobs": 2}])
async def test_completions(client: httpx.AsyncClient, openai_spec: dict[str, Any], more: dict[str, object]) -> None:
    """A completion, and each chunk of a stream.

    One departure, which OpenAI's own service makes too: finish_reason is null until a choice is finished, where the
    specification, which has one schema for both, knows no null.
    """
    body = {"model": "hermes-2", "prompt": "Hello", "max_tokens": 3} | more
    schema = validator(openai_spec, "CreateCompletionResponse")
    schema.validate((await client.post("/v1/completions", json=body)).json())
    for each in chunks(await client.post("/v1/completions", json=body | {"stream": True})):
        for choice in each["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        schema.validate(each)


async def test_models(client: httpx.AsyncClient, openai_spec: dict[str, Any]) -> None:
    """The list and its members."""
    body = (await client.get("/v1/models")).json()
    validator(openai_spec, "ListModelsResponse").validate(body)
    validator(openai_spec, "Model").validate((await client.get("/v1/models/hermes-2")).json())


@pytest.mark.parametrize("form", ["float", "base64"])
async def test_embeddings(smollm2: Path, openai_spec: dict[str, Any], form: str) -> None:
    """The list of vectors as numbers; as base64 with the one departure that OpenAI's own service makes too: a string."""
    async with client_for(FakeEngine(), smollm2, embedder=FakeEmbedder()) as client:
        asked = {"model": "all-MiniLM-L6-v2", "input": ["Hello", "there"], "encoding_format": form}
        body = (await client.post("/v1/embeddings", json=asked)).json()
    for each in body["data"]:
        assert isinstance(each["embedding"], list if form == "float" else str)
        each["embedding"] = each["embedding"] if form == "float" else []
    validator(openai_spec, "CreateEmbeddingResponse").validate(body)


async def test_errors(client: httpx.AsyncClient, openai_spec: dict[str, Any], smollm2: Path) -> None:
    """The envelope of 400, 401, 404, 405, 413 and 503, and of an error inside a stream."""
    schema: Draft202012Validator = validator(openai_spec, "ErrorResponse")
    replies = [
        await client.post("/v1/chat/completions", content="{"),
        await client.get("/v1/models", headers={"authorization": ""}),
        await client.get("/v1/models/unknown"),
        await client.put("/v1/chat/completions"),
        await client.post("/v1/chat/completions", content=b"x" * (5 * 2**20)),
    ]
    async with client_for(FakeEngine(error=Unavailable("gone")), smollm2) as failing:
        replies.append(await failing.post("/v1/chat/completions", json={"model": "hermes-2", "messages": USER}))
    assert [reply.status_code for reply in replies] == [400, 401, 404, 405, 413, 503]
    for reply in replies:
        schema.validate(reply.json())
    async with client_for(FakeEngine(error=Unavailable("gone"), fail_after=1), smollm2) as failing:
        stream = await failing.post(
            "/v1/chat/completions", json={"model": "hermes-2", "messages": USER, "stream": True}
        )
    schema.validate(chunks(stream)[-1])
