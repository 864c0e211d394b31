"""/v1/embeddings over a fake embedder: what is asked of it, what comes back, and how each wrong request is told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from frontend.domain.errors import Unavailable
from frontend.services.embeddings import BATCH_INPUTS, BATCH_TOKENS, IN_FLIGHT
from tests.fakes.embedder import FakeEmbedder, vector
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.compatibility import OF_EMBEDDINGS

ROUTE, NAME = "/v1/embeddings", "all-MiniLM-L6-v2"
HELLO = [101, 7592, 102]


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
async def client(embedder: FakeEmbedder, smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(FakeEngine(), smollm2, embedder=embedder) as connected:
        yield connected


def ask(value: object, **more: object) -> dict[str, object]:
    return {"model": NAME, "input": value} | more


class TestReplies:
    @pytest.mark.compat(
        OF_EMBEDDINGS, "`input`: a text, a list, token ids, lists of them", says="yes; ids of the embedding model"
    )
    async def test_four_forms_of_one_input(self, client: httpx.AsyncClient, embedder: FakeEmbedder) -> None:
        """A text, a list of one, its token ids, and a list of those: the model reads the same, and usage counts it."""
        for value in ("hello", ["hello"], [7592], [[7592]]):
            body = (await client.post(ROUTE, json=ask(value))).json()
            assert embedder.batches.pop() == [HELLO]
            assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
            assert np.allclose(body["data"][0]["embedding"], vector(HELLO))
            assert embedder.urgent.pop()
            assert (body["object"], body["data"][0]["object"], body["data"][0]["index"]) == ("list", "embedding", 0)

    @pytest.mark.compat(OF_EMBEDDINGS, "`encoding_format`: float, base64")
    async def test_base64_is_the_same(self, client: httpx.AsyncClient) -> None:
        """Little-endian float32, as the SDK asks for it by default."""
        body = (await client.post(ROUTE, json=ask("hello", encoding_format="base64", dimensions=384))).json()
        found = np.frombuffer(base64.b64decode(body["data"][0]["embedding"]), "<f4")
        assert np.array_equal(found, vector(HELLO))

    async def test_the_alias(self, client: httpx.AsyncClient) -> None:
        """hermes-2-embedder is the same model; the reply has its own name."""
        body = (await client.post(ROUTE, json={"model": "hermes-2-embedder", "input": "x", "user": "someone"})).json()
        assert body["model"] == NAME

    async def test_many_inputs(self, client: httpx.AsyncClient, embedder: FakeEmbedder) -> None:
        """2048 of mixed lengths come back in their order, from batches that fit the model, few of them at a time."""
        inputs = [[1000 + number] * (1 + number * 7 % 254) for number in range(2048)]
        body = (await client.post(ROUTE, json=ask(inputs, encoding_format="base64"))).json()
        assert [each["index"] for each in body["data"]] == list(range(2048))
        for number in (0, 1, 777, 2047):
            found = np.frombuffer(base64.b64decode(body["data"][number]["embedding"]), "<f4")
            assert np.array_equal(found, vector([101, *inputs[number], 102]))
        for batch in embedder.batches:
            assert len(batch) <= BATCH_INPUTS
            assert len(batch) * max(map(len, batch)) <= BATCH_TOKENS
        assert embedder.most_running == IN_FLIGHT
        assert not any(embedder.urgent)

    async def test_long_inputs_are_tokenised_in_a_thread(self, smollm2: Path) -> None:
        """The ids do not depend on where they are made."""
        found = []
        for limit in ("0", "100000"):
            embedder = FakeEmbedder()
            async with client_for(
                FakeEngine(), smollm2, embedder=embedder, LIMITS_TOKENIZE_INLINE_CHARS=limit
            ) as client:
                assert (await client.post(ROUTE, json=ask("A rather long text. " * 40))).status_code == 200
            found.append(embedder.batches)
        assert found[0] == found[1]

    async def test_both_models_are_listed(self, client: httpx.AsyncClient) -> None:
        """With the embedding model's window, under its name and its alias."""
        listed = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["smollm2-135m", "hermes-2", NAME, "hermes-2-embedder"]
        one = (await client.get("/v1/models/hermes-2-embedder")).json()
        assert (one["root"], one["max_model_len"]) == (NAME, 256)


WRONG: list[tuple[object, str, str]] = [
    (ask(""), "input", "invalid_value"),
    (ask([]), "input", "invalid_value"),
    (ask([[]]), "input[0]", "invalid_value"),
    (ask(["x", ""]), "input[1]", "invalid_value"),
    (ask(["x", 5]), "input", "invalid_value"),
    (ask([5, [6]]), "input", "invalid_value"),
    (ask(None), "input", "invalid_value"),
    (ask(5), "input", "invalid_value"),
    (ask([5.5]), "input[0]", "invalid_value"),
    (ask([-1]), "input[0]", "invalid_value"),
    (ask([30522]), "input", "invalid_value"),
    (ask([[5], [101]]), "input[1]", "invalid_value"),
    (ask(["x"] * 2049), "input", "invalid_value"),
    (ask("word " * 255), "input", "context_length_exceeded"),
    (ask(["x", "word " * 255]), "input[1]", "context_length_exceeded"),
    (ask([5] * 255), "input", "context_length_exceeded"),
    (ask(" " * 40_000), "input", "context_length_exceeded"),
    (ask([[5] * 250] * 1200), "input", "context_length_exceeded"),
    (ask("x", dimensions=256), "dimensions", "invalid_value"),
    (ask("x", dimensions=0), "dimensions", "invalid_value"),
    (ask("x", encoding_format="int8"), "encoding_format", "invalid_value"),
    (ask("x", truncate=True), "truncate", "unknown_parameter"),
    ({"input": "x"}, "model", "missing_required_parameter"),
    ({"model": NAME}, "input", "missing_required_parameter"),
]


class TestWrongRequests:
    @pytest.mark.compat(OF_EMBEDDINGS, "`dimensions`", says="only the model's own, 384")
    async def test_the_envelope_names_the_parameter(self, client: httpx.AsyncClient, embedder: FakeEmbedder) -> None:
        """400 with `param` and `code`, before the model is asked for anything; nothing is cut in silence."""
        for body, param, code in WRONG:
            response = await client.post(ROUTE, content=json.dumps(body))
            error = response.json()["error"]
            assert (response.status_code, error["param"], error["code"]) == (400, param, code), (error, str(body)[:80])
        assert embedder.batches == []

    async def test_the_longest_input_is_taken(self, client: httpx.AsyncClient) -> None:
        """254 tokens of text and two control tokens are what the model reads."""
        assert (await client.post(ROUTE, json=ask("word " * 254))).json()["usage"]["prompt_tokens"] == 256

    @pytest.mark.compat(OF_EMBEDDINGS, "a chat model", says="404 `model_not_found`")
    async def test_a_model_that_does_not_embed(self, client: httpx.AsyncClient) -> None:
        """404 model_not_found; for the chat model it says which one embeds."""
        for name in ("hermes-2", "smollm2-135m", "text-embedding-3-small"):
            response = await client.post(ROUTE, json={"model": name, "input": "x"})
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
            assert ("hermes-2-embedder" in error["message"]) == (name != "text-embedding-3-small")

    async def test_the_embedding_model_does_not_talk(self, client: httpx.AsyncClient) -> None:
        """404 model_not_found on the routes that generate, naming the route that it is for."""
        for route, more in (
            ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("completions", {"prompt": "x"}),
        ):
            response = await client.post(f"/v1/{route}", json={"model": NAME} | more)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
            assert ROUTE in response.json()["error"]["message"]


class TestFailures:
    async def test_an_absent_model(self, smollm2: Path) -> None:
        """503 with a time to come back, though several batches fail."""
        embedder = FakeEmbedder(error=Unavailable("gone", retry_after_s=2))
        async with client_for(FakeEngine(), smollm2, embedder=embedder) as client:
            response = await client.post(ROUTE, json=ask(["x"] * 100))
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert embedder.running == 0

    async def test_a_client_that_leaves(self, smollm2: Path) -> None:
        """Its batches are given up."""
        embedder = FakeEmbedder(hold=asyncio.Event())
        async with client_for(FakeEngine(), smollm2, embedder=embedder) as client:
            request = asyncio.create_task(client.post(ROUTE, json=ask(["x"] * 100)))
            while not embedder.running:
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.wait([request])
            while embedder.running:
                await asyncio.sleep(0)

    async def test_without_an_embedding_model_there_is_no_route(self, smollm2: Path) -> None:
        """embedder.enabled=false: neither listed nor answered."""
        async with client_for(FakeEngine(), smollm2) as client:
            response = await client.post(ROUTE, json=ask("x"))
            assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")
            assert len((await client.get("/v1/models")).json()["data"]) == 2

    async def test_it_needs_a_key(self, client: httpx.AsyncClient) -> None:
        """As every route but the health probes."""
        assert (await client.post(ROUTE, json=ask("x"), headers={"authorization": ""})).status_code == 401
