"""openai-agents over chat completions and responses: the runner sends the tool, runs it and sends its result back."""

from __future__ import annotations

import asyncio
import json
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    RunResult,
    function_tool,
    set_tracing_disabled,
)
from agents.items import ToolCallItem
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall, ResponseTextDeltaEvent


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return {"Paris": "22 degrees"}[city]


def calls(run: RunResult) -> list[str]:
    raw = [item.raw_item for item in run.new_items if isinstance(item, ToolCallItem)]
    return [json.loads(call.arguments)["city"] for call in raw if isinstance(call, ResponseFunctionToolCall)]


async def stream(agent: Agent) -> list[str]:
    run = Runner.run_streamed(agent, "Tell me a story.")
    raw = [event.data async for event in run.stream_events() if event.type == "raw_response_event"]
    return [event.delta for event in raw if isinstance(event, ResponseTextDeltaEvent)]


async def stream_with_tools(agent: Agent) -> str:
    run = Runner.run_streamed(agent, "What is the weather in Paris?")
    async for _ in run.stream_events():
        pass
    return str(run.final_output)


async def lasting(client: AsyncOpenAI) -> dict[str, object]:
    """Over responses: the history in a session of the library's, and then in a conversation that the service keeps."""
    model = OpenAIResponsesModel(model="hermes-2", openai_client=client)
    agent = Agent(name="weather", instructions="You help.", model=model, tools=[get_weather])
    session = OpenAIConversationsSession(openai_client=client)
    in_session = await Runner.run(agent, "What is the weather in Paris?", session=session)
    conversation = await client.conversations.create()
    kept = await Runner.run(agent, "What is the weather in Paris?", conversation_id=conversation.id)
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
    plain = Agent(name="teller", instructions="You help.", model=model)
    return {
        "calls": calls(in_session),
        "answer": in_session.final_output,
        "session": [str(item.get("type", "message")) for item in await session.get_items()],
        "kept_answer": kept.final_output,
        "kept": [item.type for item in items],
        "stream": await stream(plain),
    }


async def main(base_url: str, api_key: str) -> None:
    set_tracing_disabled(True)  # traces would go to OpenAI
    async with AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        model = OpenAIChatCompletionsModel(model="hermes-2", openai_client=client)
        agent = Agent(name="weather", instructions="You help.", model=model, tools=[get_weather])
        run = await Runner.run(agent, "What is the weather in Paris?")
        result = {
            "tools": {"calls": calls(run), "answer": run.final_output},
            "stream": await stream(agent),
            "streamed_answer": await stream_with_tools(agent),
            "lasting": await lasting(client),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
