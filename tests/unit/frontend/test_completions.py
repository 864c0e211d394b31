"""Plain completions over a fake engine: lists of prompts, token ids, and echoes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from frontend.domain.errors import Unavailable
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.compatibility import OF_COMPLETIONS

URL = "/v1/completions"
SAYS = ["Paris", "."]
HELLO = [19556, 905]  # the ids of "Hello world" in the default model


async def complete(engine: FakeEngine, model: Path, **more: object) -> dict[str, Any]:
    """The reply, whole, or put together from its stream."""
    body = {"model": "hermes-2", "max_tokens": 4} | more
    async with client_for(engine, model) as client:
        response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
    if not more.get("stream"):
        reply: dict[str, Any] = response.json()
        return reply
    frames = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: {")]
    choices: dict[int, dict[str, Any]] = defaultdict(lambda: {"text": "", "finish_reason": None})
    for choice in (choice for frame in frames for choice in json.loads(frame)["choices"]):
        whole = choices[choice["index"]]
        whole["text"] += choice["text"]
        whole["finish_reason"] = choice["finish_reason"] or whole["finish_reason"]
        whole.setdefault("tokens", []).extend((choice["logprobs"] or {}).get("tokens", []))
    return {"choices": [choices[index] | {"index": index} for index in sorted(choices)]}


@pytest.mark.compat(OF_COMPLETIONS, "`prompt`: a list of texts, with `n` choices each")
@pytest.mark.parametrize("stream", [True, False])
async def test_many_prompts(smollm2: Path, stream: bool) -> None:
    """Choices are numbered through: those of prompt i from i x n on."""
    engine = FakeEngine(says=SAYS)
    reply = await complete(engine, smollm2, prompt=["one", "two", "three"], n=2, stream=stream, echo=True)
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    assert [c["text"] for c in reply["choices"]] == [f"{p}Paris." for p in ("one", "two", "three") for _ in range(2)]
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"stop"}
    if not stream:
        assert reply["usage"]["prompt_tokens"] == sum(len(request.prompt_ids) for request in engine.requests)
        assert reply["usage"]["completion_tokens"] == 12


@pytest.mark.compat(OF_COMPLETIONS, "`prompt`: token ids, and lists of them")
@pytest.mark.parametrize("prompt", [HELLO, [HELLO, HELLO], "Hello world"])
async def test_token_ids(smollm2: Path, prompt: object) -> None:
    """They reach the engine as they are, and are what the text would be."""
    engine = FakeEngine(says=SAYS)
    await complete(engine, smollm2, prompt=prompt)
    assert [list(request.prompt_ids) for request in engine.requests] == [HELLO] * len(engine.requests)


@pytest.mark.compat(OF_COMPLETIONS, "`echo`")
@pytest.mark.compat(OF_COMPLETIONS, "`echo` with `logprobs`: those of the prompt", says="yes; 0 for its first token")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", [HELLO, "Hello world"])
async def test_an_echo_has_the_prompts_probabilities(smollm2: Path, prompt: object, stream: bool) -> None:
    """Text and tokens begin with the prompt's; its first token has no probability."""
    reply = await complete(FakeEngine(says=SAYS), smollm2, prompt=prompt, echo=True, logprobs=1, stream=stream)
    (choice,) = reply["choices"]
    assert choice["text"] == "Hello worldParis."
    if stream:
        assert choice["tokens"][:2] == ["Hello", " world"]
        return
    logprobs = choice["logprobs"]
    assert logprobs["tokens"][:2] == ["Hello", " world"]
    assert logprobs["token_logprobs"][:2] == [0.0, -1.0]
    assert logprobs["top_logprobs"][:2] == [{}, {" world": -1.0}]
    assert logprobs["text_offset"][:3] == [0, 5, 11]


@pytest.mark.compat(OF_COMPLETIONS, "`max_tokens: 0`: the prompt's probabilities alone")
@pytest.mark.parametrize("echo", [True, False])
async def test_no_tokens_at_all(smollm2: Path, echo: bool) -> None:
    """Nothing is generated that anybody sees or pays for."""
    reply = await complete(FakeEngine(), smollm2, prompt="Hello world", max_tokens=0, echo=echo, logprobs=0)
    (choice,) = reply["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Hello world" if echo else "", "length")
    assert choice["logprobs"]["tokens"] == (["Hello", " world"] if echo else [])
    assert reply["usage"]["completion_tokens"] == 0


async def test_the_first_failure_ends_them_all(smollm2: Path) -> None:
    """One prompt of three that fails: 503, and nothing goes on running."""
    engine = FakeEngine(error=Unavailable("gone"), fail_after=2)
    async with client_for(engine, smollm2) as client:
        response = await client.post(URL, json={"model": "hermes-2", "prompt": ["a", "b", "c"]})
    assert response.status_code == 503
    assert engine.running == 0
