"""LiteLLM's SDK, whose `openai/` prefix means: an OpenAI-compatible service at `api_base`."""

from __future__ import annotations

import json
import sys
from functools import partial

import litellm

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def get_weather(city: str) -> str:
    return {"Paris": "22 degrees"}[city]


def main(base_url: str, api_key: str) -> None:
    complete = partial(litellm.completion, "openai/hermes-2", api_base=base_url, api_key=api_key, num_retries=0)
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    reply = complete(messages=messages, tools=[WEATHER]).choices[0]
    messages.append(reply.message)
    arguments = [json.loads(call.function.arguments) for call in reply.message.tool_calls]
    for call, each in zip(reply.message.tool_calls, arguments, strict=True):
        messages.append(
            {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": get_weather(**each)}
        )
    answer = complete(messages=messages, tools=[WEATHER]).choices[0]
    chunks = complete(messages=[{"role": "user", "content": "Tell me a story."}], stream=True)
    result = {
        "tools": {
            "calls": [each["city"] for each in arguments],
            "reasons": [reply.finish_reason, answer.finish_reason],
            "answer": answer.message.content,
        },
        "stream": [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
