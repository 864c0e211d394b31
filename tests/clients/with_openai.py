"""openai-python, which raises on every reply that is not what OpenAI specifies (`_strict_response_validation`)."""

from __future__ import annotations

import json
import sys

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import BaseModel

WEATHER: list[ChatCompletionToolUnionParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
QUESTION: ChatCompletionMessageParam = {"role": "user", "content": "What is the weather in Paris?"}


class City(BaseModel):
    name: str
    country: str


def get_weather(city: str) -> str:
    return {"Paris": "22 degrees", "Oslo": "7 degrees"}[city]


def ask_with_tools(client: OpenAI, question: ChatCompletionMessageParam) -> dict[str, object]:
    messages = [question]
    reply = client.chat.completions.create(model="hermes-2", messages=messages, tools=WEATHER).choices[0]
    calls = [call for call in reply.message.tool_calls or () if call.type == "function"]
    messages.append(reply.message.to_dict())  # type: ignore[arg-type]  # the message as it came, as clients do it
    for call in calls:
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = client.chat.completions.create(model="hermes-2", messages=messages, tools=WEATHER).choices[0]
    return {
        "calls": [json.loads(call.function.arguments)["city"] for call in calls],
        "reasons": [reply.finish_reason, answer.finish_reason],
        "answer": answer.message.content,
    }


def stream(client: OpenAI) -> list[str]:
    chunks = client.chat.completions.create(
        model="hermes-2", messages=[{"role": "user", "content": "Tell me a story."}], stream=True
    )
    return [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]


def stream_with_tools(client: OpenAI) -> list[str]:
    """The SDK's own accumulator puts the deltas of the call together."""
    with client.chat.completions.stream(model="hermes-2", messages=[QUESTION], tools=WEATHER) as events:
        message = events.get_final_completion().choices[0].message
    return [json.loads(call.function.arguments)["city"] for call in message.tool_calls or ()]


def structured(client: OpenAI) -> dict[str, str]:
    reply = client.chat.completions.parse(
        model="hermes-2", messages=[{"role": "user", "content": "Describe Paris."}], response_format=City
    )
    assert reply.choices[0].message.parsed is not None
    return reply.choices[0].message.parsed.model_dump()


def main(base_url: str, api_key: str) -> None:
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0, _strict_response_validation=True) as client:
        result = {
            "tools": ask_with_tools(client, QUESTION),
            "parallel": ask_with_tools(client, {"role": "user", "content": "Is it warmer in Paris or in Oslo?"}),
            "stream": stream(client),
            "streamed_calls": stream_with_tools(client),
            "structured": structured(client),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
