"""pydantic-ai: an agent that runs its tool itself, streamed, and with the model's native structured output."""

from __future__ import annotations

import asyncio
import json
import sys

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    name: str
    country: str


def get_weather(city: str) -> str:
    """The weather in a city."""
    return {"Paris": "22 degrees"}[city]


async def ask_with_tools(model: OpenAIChatModel) -> dict[str, object]:
    run = await Agent(model, tools=[get_weather]).run("What is the weather in Paris?")
    replies = [message for message in run.all_messages() if isinstance(message, ModelResponse)]
    return {
        "calls": [part.args_as_dict()["city"] for r in replies for part in r.parts if isinstance(part, ToolCallPart)],
        "reasons": [{"stop": "stop", "tool_call": "tool_calls"}[str(reply.finish_reason)] for reply in replies],
        "answer": run.output,
    }


async def stream(model: OpenAIChatModel) -> list[str]:
    async with Agent(model).run_stream("Tell me a story.") as run:
        return [piece async for piece in run.stream_text(delta=True, debounce_by=None)]


async def main(base_url: str, api_key: str) -> None:
    model = OpenAIChatModel("hermes-2", provider=OpenAIProvider(base_url=base_url, api_key=api_key))
    structured = await Agent(model, output_type=NativeOutput(City)).run("Describe Paris.")
    by_tool = await Agent(model, output_type=City).run("Describe Paris by tool.")
    result = {
        "tools": await ask_with_tools(model),
        "stream": await stream(model),
        "structured": structured.output.model_dump(),
        "structured_by_tool": by_tool.output.model_dump(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
