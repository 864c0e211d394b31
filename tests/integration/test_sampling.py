"""Sampling parameters do what they say on the real engine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import openai
import pytest

from frontend.domain import model_card
from frontend.domain.hermes.encoder import Encoder
from tests.support.compatibility import OF_CHAT, OF_COMPLETIONS

pytestmark = pytest.mark.real

QUESTION: list[Any] = [{"role": "user", "content": "Name the capital of France."}]
MARKERS = ["capital", "Paris", " is", "."]


@pytest.fixture(scope="module")
def paris(smollm2: Path) -> int:
    """The token that the answer cannot do without."""
    (token,) = Encoder.from_folder(model_card.files_of(smollm2, model_card.read(smollm2))).encode(" Paris")
    return token


def chat(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="hermes-2", messages=QUESTION, **{"max_tokens": 24} | more)


@pytest.mark.compat(OF_CHAT, "`seed`", says="yes, while nothing else runs on the engine")
def test_a_seed_repeats(client: openai.OpenAI) -> None:
    """The same seed, the same text; another seed, another one."""
    first, again, other = (chat(client, seed=seed, temperature=1.5).choices[0].message.content for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.compat(OF_CHAT, "`stop`", says="yes: never part of the reply")
@pytest.mark.parametrize("stop", MARKERS)
@pytest.mark.parametrize("stream", [True, False])
def test_stop_never_leaks(client: openai.OpenAI, stop: str, stream: bool) -> None:
    """Not a character of it, streamed or not; the reply is what stood before it."""
    whole = chat(client, temperature=0).choices[0].message.content
    assert stop in whole
    if stream:
        chunks = chat(client, temperature=0, stop=stop, stream=True)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    else:
        text = chat(client, temperature=0, stop=stop).choices[0].message.content
    assert text == whole.split(stop)[0]


@pytest.mark.compat(OF_CHAT, "`logprobs`, `top_logprobs`", says="yes: the sampled token is the sampled one")
def test_the_sampled_token_is_the_sampled_one(client: openai.OpenAI) -> None:
    """At a high temperature the sampled tokens spell the reply, though many are not the likeliest."""
    choice = chat(client, temperature=2.0, logprobs=True, top_logprobs=3, seed=3).choices[0]
    positions = choice.logprobs.content
    spelt = b"".join(bytes(position.bytes) for position in positions).decode(errors="replace")
    assert spelt.removesuffix("<|im_end|>") == choice.message.content
    assert any(position.token != position.top_logprobs[0].token for position in positions)
    for position in positions:
        assert position.logprob <= 0
        assert [c.logprob for c in position.top_logprobs] == sorted(
            (c.logprob for c in position.top_logprobs), reverse=True
        )


@pytest.mark.compat(OF_CHAT, "`logit_bias`")
def test_a_bias_bans_and_forces(client: openai.OpenAI, paris: int) -> None:
    """-100 bans a token, 100 leaves nothing else."""
    assert " Paris" in chat(client, temperature=0).choices[0].message.content
    assert " Paris" not in chat(client, temperature=0, logit_bias={str(paris): -100}).choices[0].message.content
    assert chat(client, max_tokens=3, logit_bias={str(paris): 100}).choices[0].message.content == " Paris" * 3


@pytest.mark.compat(OF_CHAT, "`n`")
def test_n_choices(client: openai.OpenAI) -> None:
    """Each of its own, in order; and the same at temperature 0."""
    warm = chat(client, n=3, temperature=1.5, seed=1)
    assert [choice.index for choice in warm.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in warm.choices}) > 1
    assert len({choice.message.content for choice in chat(client, n=3, temperature=0).choices}) == 1


@pytest.mark.compat(
    OF_CHAT, "vLLM's `top_k`, `min_p`, `repetition_penalty`, `min_tokens`, `stop_token_ids`, `ignore_eos`"
)
def test_vllms_own(client: openai.OpenAI, paris: int) -> None:
    """As top-level fields, the way its users send them."""
    greedy = chat(client, temperature=0).choices[0].message.content
    assert chat(client, temperature=2, extra_body={"top_k": 1}).choices[0].message.content == greedy
    assert chat(client, temperature=2, extra_body={"min_p": 1.0}).choices[0].message.content == greedy
    endless = chat(client, temperature=0, max_tokens=40, extra_body={"ignore_eos": True})
    assert endless.usage.completion_tokens == 40
    assert chat(client, temperature=0, max_tokens=40, extra_body={"min_tokens": 30}).usage.completion_tokens >= 30
    penalised = chat(client, temperature=0, max_tokens=40, extra_body={"repetition_penalty": 1.5, "ignore_eos": True})
    assert penalised.choices[0].message.content != endless.choices[0].message.content
    stopped = chat(client, temperature=0, extra_body={"stop_token_ids": [paris]}).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (greedy.split(" Paris")[0], "stop")


@pytest.mark.compat(OF_COMPLETIONS, "`echo` with `logprobs`: those of the prompt", says="yes; 0 for its first token")
def test_a_prompt_is_scored_the_same_alone_and_generated(client: openai.OpenAI) -> None:
    """What the model generates greedily it finds, echoed, as likely as when it wrote it."""
    prompt = "The capital of France is"
    written = client.completions.create(
        model="hermes-2", prompt=prompt, max_tokens=2, temperature=0, logprobs=1
    ).choices[0]
    echoed = client.completions.create(
        model="hermes-2", prompt=prompt + written.text, max_tokens=0, echo=True, logprobs=1
    ).choices[0]
    assert written.logprobs is not None
    assert echoed.logprobs is not None
    assert written.logprobs.token_logprobs is not None
    assert echoed.logprobs.token_logprobs is not None
    assert echoed.text == prompt + written.text
    tail = echoed.logprobs.token_logprobs[-2:]
    assert all(math.isclose(a, b, abs_tol=0.2) for a, b in zip(tail, written.logprobs.token_logprobs, strict=True))


@pytest.mark.compat(OF_COMPLETIONS, "`prompt`: a list of texts, with `n` choices each")
def test_prompts_together_are_prompts_alone(client: openai.OpenAI) -> None:
    """A list is answered as its members are; where the model is sure, so that a batch's rounding decides nothing."""
    prompts = ["The capital of France is", "1, 2, 3, 4, 5, 6,"]
    together = client.completions.create(model="hermes-2", prompt=prompts, max_tokens=4, temperature=0).choices
    alone = [
        client.completions.create(model="hermes-2", prompt=each, max_tokens=4, temperature=0).choices[0].text
        for each in prompts
    ]
    assert [choice.text for choice in together] == alone
