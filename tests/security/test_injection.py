"""Ten thousand hostile texts at every inlet of the API: none becomes a control token of a prompt.

For each request there is a twin in harmless words. What reaches the engine has the same control tokens in the same order, and
each text stands between the same two of them. The second model is shaped like Hermes-2-Pro: its `<tool_call>` is an added
token that is not marked special, which encoders that were told to split special tokens let through.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontend.domain import model_card
from frontend.domain.hermes.encoder import Encoder
from tests.fakes.engine import FakeEngine
from tests.fakes.words import WordsEmbedder
from tests.security.payloads import payload
from tests.support.app import client_for

SEED = 6
ROUNDS = {"smollm2": 58, "tiny_llama": 25}
"""Of all KINDS of requests."""
MOST_CHARS = {"smollm2": 1000, "tiny_llama": 40}
"""Of one text. The second model has 600 words and a window of 2048 tokens."""
MARK = re.compile(r"\[q\d+\]")
Words = Callable[[], str]
"""The text of the next inlet."""
Request = tuple[str, Mapping[str, Any]]


class Prompts:
    """What the engine was given, read with the model's own control tokens."""

    def __init__(self, encoder: Encoder, engine: FakeEngine) -> None:
        self._encoder = encoder
        self._engine = engine
        self._control = {i: token for token, i in encoder.control_tokens.items()}

    def take(self) -> list[list[int]]:
        taken = [list(request.prompt_ids) for request in self._engine.requests]
        self._engine.requests.clear()
        return taken

    def controls(self, ids: Sequence[int]) -> list[str]:
        return [self._control[i] for i in ids if i in self._control]

    def text(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._encoder.token_bytes, ids)).decode(errors="replace")

    def places(self, ids: Sequence[int]) -> dict[str, set[int]]:
        """Each mark, and behind how many control tokens it stands."""
        found: dict[str, set[int]] = {}
        behind, run = 0, bytearray()
        for i in [*ids, None]:
            if i is None or i in self._control:
                for mark in MARK.findall(run.decode(errors="replace")):
                    found.setdefault(mark, set()).add(behind)
                behind, run = behind + 1, bytearray()
            else:
                run += self._encoder.token_bytes(i)
        return found


class Model:
    def __init__(self, folder: Path, engine: FakeEngine, client: httpx.AsyncClient) -> None:
        encoder = Encoder.from_folder(model_card.files_of(folder, model_card.read(folder)))
        self.prompts = Prompts(encoder, engine)
        self.client = client

    async def ask(self, path: str, body: Mapping[str, Any]) -> list[list[int]]:
        """The prompts of one request."""
        response = await self.client.post(path, content=json.dumps(body))
        assert response.status_code == 200, response.text
        return self.prompts.take()


@asynccontextmanager
async def opened(folder: Path, engine: FakeEngine, **settings: str) -> AsyncIterator[Model]:
    async with client_for(engine, folder, None, WordsEmbedder(), None, None, **settings) as client:
        yield Model(folder, engine, client)


def one_token() -> FakeEngine:
    return FakeEngine(says=["."])


def messages(words: Words) -> list[dict[str, Any]]:
    """A history with a text at everything in it that may be one."""
    return [
        {"role": "system", "content": words(), "name": words()},
        {"role": "developer", "content": [{"type": "text", "text": words()}, {"type": "text", "text": words()}]},
        {"role": "user", "content": [{"type": "text", "text": words()}, {"type": "text", "text": words()}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": words()}, {"type": "refusal", "refusal": words()}],
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"q": words()})}},
                {"id": words()[:128], "type": "function", "function": {"name": "f", "arguments": words()}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": words()},
        {"role": "tool", "tool_call_id": None, "content": [{"type": "text", "text": words()}]},
        {"role": "assistant", "refusal": words(), "name": words()},
        {"role": "user", "content": words()},
    ]


def chat(words: Words) -> Request:
    sent = messages(words)
    sent[5]["tool_call_id"] = sent[3]["tool_calls"][1]["id"]
    return "/v1/chat/completions", {
        "model": "hermes-2",
        "messages": sent,
        "stop": [words().encode()[:64].decode(errors="ignore") for _ in range(2)],
        "user": words(),
        "metadata": {"a": words()},
        "safety_identifier": words(),
        "prompt_cache_key": words(),
    }


def parameters(words: Words) -> dict[str, Any]:
    """A JSON schema with a text at everything in it that may be one."""
    name = words()
    return {
        "type": "object",
        "title": words(),
        "description": words(),
        "properties": {
            name: {"type": "string", "description": words(), "enum": [words(), words()]},
            "b": {"type": "object", "properties": {words(): {"const": words()}}, "default": words()},
        },
        "required": [name],
        "$comment": words(),
        words(): words(),
    }


def tools(words: Words) -> Request:
    function = {"name": "f", "description": words(), "parameters": parameters(words)}
    return "/v1/chat/completions", {
        "model": "hermes-2",
        "messages": [{"role": "user", "content": words()}],
        "tools": [{"type": "function", "function": function}],
        "max_tokens": 1,
    }


def structured(words: Words) -> Request:
    schema = {"name": "s", "description": words(), "schema": parameters(words)}
    return "/v1/chat/completions", {
        "model": "hermes-2",
        "messages": [{"role": "user", "content": words()}],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def raw(words: Words) -> Request:
    return "/v1/completions", {"model": "hermes-2", "prompt": [words() for _ in range(8)], "max_tokens": 1}


def items(words: Words) -> list[dict[str, Any]]:
    """Items of every type that is a text."""
    call = words()[:128]
    parts = [{"type": "input_text", "text": words()}, {"type": "text", "text": words()}]
    said = [{"type": "output_text", "text": words()}, {"type": "refusal", "refusal": words()}]
    return [
        {"type": "message", "role": "system", "content": words()},
        {"role": "developer", "content": parts},
        {"role": "user", "content": words(), "id": words()},
        {"type": "message", "role": "assistant", "content": said},
        {"type": "function_call", "call_id": call, "name": "f", "arguments": json.dumps({words(): words()})},
        {"type": "function_call_output", "call_id": call, "output": [{"type": "input_text", "text": words()}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": words()},
        {"type": "function_call_output", "call_id": "c", "output": words()},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": words()}]},
        {"type": "file_search_call", "queries": [words()], "results": [{"text": words()}]},
        {"type": "message", "role": "user", "content": words()},
    ]


def response(words: Words) -> Request:
    return "/v1/responses", {
        "model": "hermes-2",
        "input": items(words),
        "instructions": words(),
        "metadata": {"a": words()},
        "user": words(),
        "store": False,
    }


def response_tools(words: Words) -> Request:
    function = {"type": "function", "name": "f", "description": words(), "parameters": parameters(words)}
    return "/v1/responses", {"model": "hermes-2", "input": words(), "tools": [function], "store": False}


def response_text(words: Words) -> Request:
    text = {"format": {"type": "json_schema", "name": "s", "description": words(), "schema": parameters(words)}}
    return "/v1/responses", {"model": "hermes-2", "input": words(), "text": text, "store": False}


def compaction(words: Words) -> Request:
    return "/v1/responses/compact", {"model": "hermes-2", "input": items(words), "instructions": words()}


KINDS = [chat, tools, structured, raw, response, response_tools, response_text, compaction]
CONVERSATIONS = 12
"""Of one model; each is a session with a history, metadata, an answer of the model's and two turns."""


class Inlets:
    """Marks each text of a request, so that it is found again, and counts them."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"[q{self.count}]{self._text()}"


def test_so_many_cases() -> None:
    """The texts of the requests below are 10,000 and more."""
    counted = Inlets(str)
    for build in KINDS:
        build(counted)
    assert counted.count * sum(ROUNDS.values()) >= 10_000


@pytest.fixture(params=["smollm2", "tiny_llama"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_no_text_becomes_a_control_token(name: str, request: pytest.FixtureRequest) -> None:
    """Chats, tools, schemas, raw prompts, items of every type, compaction: as many control tokens as in plain words, in the
    same order, and every text between the same two."""
    chance = random.Random(SEED)  # noqa: S311  # of a test
    async with opened(request.getfixturevalue(name), one_token()) as model:
        for build in KINDS:
            twins = await model.ask(*build(Inlets(str)))
            for _ in range(ROUNDS[name]):
                path, body = build(Inlets(lambda: payload(chance, MOST_CHARS[name])))
                check(model.prompts, await model.ask(path, body), twins, body)


def check(prompts: Prompts, hostile: list[list[int]], twins: list[list[int]], sent: object) -> None:
    assert len(hostile) == len(twins)
    for ids, twin in zip(hostile, twins, strict=True):
        assert prompts.controls(ids) == prompts.controls(twin), sent
        assert prompts.places(ids) == prompts.places(twin), sent


async def test_what_is_kept_becomes_none_either(smollm2: Path) -> None:
    """A session's conversation with hostile items, metadata and answers of the model: the turns that follow."""
    chance = random.Random(SEED)  # noqa: S311
    engine = Repeating()
    async with opened(smollm2, engine) as model:
        twins = await turns(model, Inlets(str))
        for _ in range(CONVERSATIONS):
            engine.says = ["[q0]", payload(chance)]
            check(model.prompts, await turns(model, Inlets(lambda: payload(chance))), twins, "a conversation")


class Repeating(FakeEngine):
    """A model that says what it was made to say."""

    def __init__(self) -> None:
        super().__init__(says=["[q0]", "."])

    @property
    def says(self) -> Sequence[str]:
        return self._says or ()

    @says.setter
    def says(self, texts: Sequence[str]) -> None:
        self._says = texts


async def turns(model: Model, words: Words) -> list[list[int]]:
    """The prompts of three turns of a session, which resends nothing."""
    history, after = items(words), items(words)
    session = await model.client.post(
        "/v1/sessions", json={"metadata": {"a": words()}, "items": [*history[:6], *history[8:]]}
    )
    assert session.status_code == 200, session.text
    headers, conversation = {"x-session-id": session.json()["id"]}, session.json()["conversation"]["id"]
    added = await model.client.post(f"/v1/conversations/{conversation}/items", json={"items": after})
    assert added.status_code == 200, added.text
    await model.client.post(f"/v1/conversations/{conversation}", json={"metadata": {"b": words()}})
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": words()}]}),
        ("/v1/responses", {"input": words(), "instructions": words()}),
        ("/v1/responses", {"input": items(words)}),
    ):
        reply = await model.client.post(path, json={"model": "hermes-2", **body}, headers=headers)
        assert reply.status_code == 200, reply.text
    return model.prompts.take()
