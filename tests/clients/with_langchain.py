"""langchain-openai: ChatOpenAI with bound tools, streamed, and with structured output."""

from __future__ import annotations

import json
import sys

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr


class City(BaseModel):
    """A city."""

    name: str
    country: str


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return {"Paris": "22 degrees"}[city]


def ask_with_tools(model: ChatOpenAI) -> dict[str, object]:
    bound = model.bind_tools([get_weather])
    messages: list[BaseMessage] = [HumanMessage("What is the weather in Paris?")]
    reply = bound.invoke(messages)
    messages.append(reply)
    messages += [
        ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"], name=call["name"])
        for call in reply.tool_calls
    ]
    answer = bound.invoke(messages)
    return {
        "calls": [call["args"]["city"] for call in reply.tool_calls],
        "reasons": [each.response_metadata["finish_reason"] for each in (reply, answer)],
        "answer": answer.text,
    }


def lasting(base_url: str, api_key: str) -> dict[str, object]:
    """Over responses: only what is new is sent, with the id of the response before."""
    model = ChatOpenAI(
        model="hermes-2",
        base_url=base_url,
        api_key=SecretStr(api_key),
        max_retries=0,
        use_responses_api=True,
        use_previous_response_id=True,
    )
    bound = model.bind_tools([get_weather])
    messages: list[BaseMessage] = [HumanMessage("What is the weather in Paris?")]
    reply = bound.invoke(messages)
    messages.append(reply)
    messages += [ToolMessage(get_weather.invoke(each["args"]), tool_call_id=each["id"]) for each in reply.tool_calls]
    answer = bound.invoke(messages)
    return {
        "calls": [each["args"]["city"] for each in reply.tool_calls],
        "answer": answer.text,
        "stream": [chunk.text for chunk in model.stream("Tell me a story.") if chunk.text],
    }


def main(base_url: str, api_key: str) -> None:
    model = ChatOpenAI(model="hermes-2", base_url=base_url, api_key=SecretStr(api_key), max_retries=0)
    structured = model.with_structured_output(City, method="json_schema").invoke("Describe Paris.")
    assert isinstance(structured, City)
    result = {
        "tools": ask_with_tools(model),
        "stream": [chunk.text for chunk in model.stream("Tell me a story.") if chunk.text],
        "structured": structured.model_dump(),
        "lasting": lasting(base_url, api_key),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
