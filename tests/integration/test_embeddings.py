"""/v1/embeddings through the real Triton and the real model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests.support.app import HEADERS
from tests.support.stack import API_KEY, Stack

NAME = "all-MiniLM-L6-v2"
TEXTS = ["A cat sits on the mat.", "A kitten rests on a rug.", "Stock prices fell sharply on Monday.", "word " * 240]
REFERENCE = """
import json, sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
print(json.dumps(model.encode(json.load(sys.stdin)).tolist()))
"""


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0, timeout=60) as sdk:
        yield sdk


@pytest.mark.real
def test_numbers_and_base64_agree(client: openai.OpenAI, stack: Stack) -> None:
    """The SDK's default (base64), and float under its strict validation: the same vectors, close where the texts are."""
    default = client.embeddings.create(model=NAME, input=TEXTS)
    strict = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0, _strict_response_validation=True)
    with strict:
        numbers = strict.embeddings.create(model="hermes-2-embedder", input=TEXTS, encoding_format="float")
    vectors = np.asarray([each.embedding for each in default.data])
    assert np.array_equal(vectors, np.asarray([each.embedding for each in numbers.data], np.float32))
    cat, kitten, stocks = vectors[:3]
    assert cat @ kitten > 0.5 > 0.3 > cat @ stocks
    assert numbers.usage.prompt_tokens == numbers.usage.total_tokens == 9 + 9 + 9 + 242


@pytest.mark.real
def test_they_are_the_models_own(client: openai.OpenAI, minilm: Path, engine_environment: Path) -> None:
    """Within 1e-4 of what sentence-transformers' own encode() gives."""
    done = subprocess.run(
        [str(engine_environment / "bin/python"), "-W", "ignore", "-c", REFERENCE, str(minilm)],
        input=json.dumps(TEXTS),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [each.embedding for each in client.embeddings.create(model=NAME, input=TEXTS).data]
    assert np.allclose(ours, json.loads(done.stdout), atol=1e-4)


@pytest.mark.real
def test_two_hundred_inputs(client: openai.OpenAI) -> None:
    """Each gets its own vector, in order, though they went in batches by length."""
    inputs = [f"Sentence {number} is about {'very ' * (number % 7)}little." for number in range(200)]
    together = [each.embedding for each in client.embeddings.create(model=NAME, input=inputs).data]
    for number in (0, 99, 199):
        alone = client.embeddings.create(model=NAME, input=inputs[number]).data[0].embedding
        assert np.allclose(together[number], alone, atol=1e-5)


def embed(stack: Stack) -> httpx.Response:
    return httpx.post(f"{stack.url}/v1/embeddings", json={"model": NAME, "input": "x"}, headers=HEADERS, timeout=60)


def test_a_killed_embedder_comes_back(tmp_path: Path) -> None:
    """kill -9 of its Python process: 503 at once, noticed within seconds, and after the restart it embeds again."""
    with Stack(tmp_path, ENGINE_BACKEND="scripted", EMBEDDER_ENABLED="true") as stack:
        assert embed(stack).status_code == 200
        seen = len(stack.lines)
        stack.find("embedder/1/model.py").kill()
        failed = embed(stack)
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "engine_unavailable")
        assert stack.wait_for("the embedder's process has ended; starting it anew", 10, seen) < 5
        stack.wait_for("triton   | ready after", 60, seen)
        assert embed(stack).status_code == 200
