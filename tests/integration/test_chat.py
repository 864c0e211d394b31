"""The main job on the real stack: a stock OpenAI SDK talks to the trained model."""

from __future__ import annotations

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

pytestmark = pytest.mark.real

QUESTION: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Name the capital of France."}]


def test_the_answer_names_paris(client: openai.OpenAI) -> None:
    """The trained model, asked at temperature 0, knows the capital of France."""
    reply = client.chat.completions.create(model="hermes-2", messages=QUESTION, temperature=0)
    answer = reply.choices[0].message.content
    assert answer is not None
    assert "Paris" in answer
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == "smollm2-135m"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    """Streamed text, put together, is the text of the unstreamed reply; so is the usage."""
    whole = client.chat.completions.create(model="hermes-2", messages=QUESTION, temperature=0, max_tokens=64)
    chunks = list(
        client.chat.completions.create(
            model="hermes-2",
            messages=QUESTION,
            temperature=0,
            max_tokens=64,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert [choice.delta.role for choice in chunks[0].choices] == ["assistant"]
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
