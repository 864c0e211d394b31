"""From the wire's chat to the domain's: what a request means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from frontend.api import constraints
from frontend.api.chat import schema, tools
from frontend.api.file_search import to_search
from frontend.api.parameters import refuse_unsupported, sampling
from frontend.domain.errors import InvalidRequest
from frontend.domain.json_schema import Budget
from frontend.domain.messages import Message
from frontend.domain.tools import ToolCall
from frontend.services.chat import ChatTurn, JsonFormat

ASKS_FOR_NOTHING: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
}
"""Parameters that are not supported, with the values that change nothing and are taken all the same."""


def to_domain(data: schema.CreateChatCompletion, turn_id: str, session_id: str | None, max_n: int) -> ChatTurn:
    """Raises InvalidRequest, naming the parameter."""
    refuse_unsupported(data, ASKS_FOR_NOTHING)
    if data.top_logprobs is not None and not data.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    conversation_id = conversation_of(data)
    messages = messages_of(data)
    if not (conversation_id or session_id):  # otherwise the conversation may have the calls
        messages = with_tool_names(messages)
    budget = Budget()
    offered = tools.offered(data, budget)
    search = tools.searched(data)
    return ChatTurn(
        id=turn_id,
        model=data.model,
        messages=messages,
        sampling=sampling(
            data,
            max_tokens=data.max_completion_tokens or data.max_tokens,
            logprobs=(data.top_logprobs or 0) if data.logprobs else None,
            max_n=max_n,
        ),
        stream=bool(data.stream),
        tools=offered,
        tool_choice=constraints.choice(tools.wanted(data), offered, data.parallel_tool_calls),
        file_search=None if search is None else to_search(search),
        json_format=json_format(data.response_format, budget),
        profile=data.profile,
        conversation_id=conversation_id,
        session_id=session_id,
    )


def conversation_of(data: schema.CreateChatCompletion) -> str | None:
    given = data.conversation
    return given.id if isinstance(given, schema.ChatConversation) else given


def messages_of(data: schema.CreateChatCompletion) -> list[Message]:
    """Raises InvalidRequest."""
    return [message(each, f"messages[{i}]") for i, each in enumerate(data.messages)]


def with_tool_names(messages: Sequence[Message]) -> list[Message]:
    """Raises InvalidRequest for calls without their results and results without their call."""
    result: list[Message] = []
    unanswered: dict[str, str] = {}
    for i, each in enumerate(messages):
        if each.role == "tool":
            name = unanswered.pop(each.tool_call_id or "", None)
            if name is None:
                raise InvalidRequest(
                    "A message of role 'tool' must answer a call of the assistant's message before it.",
                    param=f"messages[{i}].tool_call_id",
                )
            result.append(msgspec.structs.replace(each, tool_name=name))
            continue
        if unanswered:
            raise no_result(unanswered, f"messages[{i}]")
        result.append(each)
        unanswered = {call.id: call.name for call in each.tool_calls}
    if unanswered:
        raise no_result(unanswered, "messages")
    return result


def no_result(unanswered: Mapping[str, str], where: str) -> InvalidRequest:
    return InvalidRequest(
        "An assistant message with 'tool_calls' must be followed by messages of role 'tool' that answer each of them;"
        f" without an answer: {', '.join(unanswered)}.",
        param=where,
    )


def message(data: schema.InputMessage, where: str) -> Message:
    if isinstance(data, schema.ToolMessage):
        return Message("tool", text(data.content), tool_call_id=data.tool_call_id)
    if not isinstance(data, schema.AssistantMessage):
        return Message("user" if isinstance(data, schema.UserMessage) else "system", text(data.content))
    for name in ("function_call", "audio"):
        if getattr(data, name):
            raise InvalidRequest(
                f"'{name}' is not supported by this service.", param=f"{where}.{name}", code="unsupported_parameter"
            )
    calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in data.tool_calls or ()]
    if data.content is None and data.refusal is None and not calls:
        raise InvalidRequest("An assistant message needs content or tool_calls.", param=f"{where}.content")
    return Message("assistant", text(data.content) if data.content is not None else data.refusal or "", calls)


def json_format(
    data: schema.TextFormat | schema.JsonObjectFormat | schema.JsonSchemaFormat | None, budget: Budget
) -> JsonFormat | None:
    if isinstance(data, schema.JsonObjectFormat):
        return constraints.any_json()
    if isinstance(data, schema.JsonSchemaFormat):
        named = data.json_schema
        return constraints.json_of(named.schema, named.strict, "response_format.json_schema.schema", budget)
    return None


def text(content: str | Sequence[schema.TextPart | schema.RefusalPart]) -> str:
    """Parts are one text: they are joined without anything between them."""
    if isinstance(content, str):
        return content
    return "".join(part.text if isinstance(part, schema.TextPart) else part.refusal for part in content)
