"""Between the wire's chat and the domain's: what a request means, and how deltas become chunks or one completion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing

import msgspec

from frontend.api import constraints, generations
from frontend.api.chat import schema, tools
from frontend.api.logprobs import token_logprob
from frontend.api.parameters import refuse_unsupported, sampling
from frontend.domain.errors import InvalidRequest
from frontend.domain.generation import TokenLogprobs
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.json_schema import Budget
from frontend.domain.messages import Message
from frontend.domain.tools import ToolCall
from frontend.http.replies import event
from frontend.services.chat import ChatTurn, JsonFormat
from frontend.services.generate import Reply

ASKS_FOR_NOTHING: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
}
"""Parameters that are not supported, with the values that change nothing and are taken all the same."""


def to_domain(data: schema.CreateChatCompletion, max_n: int) -> ChatTurn:
    """Raises InvalidRequest, naming the parameter."""
    refuse_unsupported(data, ASKS_FOR_NOTHING)
    if data.top_logprobs is not None and not data.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    budget = Budget()
    offered = tools.offered(data, budget)
    return ChatTurn(
        model=data.model,
        messages=conversation(data.messages),
        sampling=sampling(
            data,
            max_tokens=data.max_completion_tokens or data.max_tokens,
            logprobs=(data.top_logprobs or 0) if data.logprobs else None,
            max_n=max_n,
        ),
        stream=bool(data.stream),
        tools=offered,
        tool_choice=constraints.choice(tools.wanted(data), offered, data.parallel_tool_calls),
        json_format=json_format(data.response_format, budget),
        profile=data.profile,
    )


def conversation(messages: Sequence[schema.InputMessage]) -> list[Message]:
    """Raises InvalidRequest, also for calls without their results and results without their call."""
    result: list[Message] = []
    unanswered: dict[str, str] = {}
    for i, data in enumerate(messages):
        where = f"messages[{i}]"
        if isinstance(data, schema.ToolMessage):
            name = unanswered.pop(data.tool_call_id, None)
            if name is None:
                raise InvalidRequest(
                    "A message of role 'tool' must answer a call of the assistant's message before it.",
                    param=f"{where}.tool_call_id",
                )
            result.append(Message("tool", text(data.content), tool_name=name))
            continue
        if unanswered:
            raise no_result(unanswered, where)
        result.append(message(data, where))
        unanswered = {call.id: call.name for call in result[-1].tool_calls}
    if unanswered:
        raise no_result(unanswered, "messages")
    return result


def no_result(unanswered: Mapping[str, str], where: str) -> InvalidRequest:
    return InvalidRequest(
        "An assistant message with 'tool_calls' must be followed by messages of role 'tool' that answer each of them;"
        f" without an answer: {', '.join(unanswered)}.",
        param=where,
    )


def message(
    data: schema.SystemMessage | schema.DeveloperMessage | schema.UserMessage | schema.AssistantMessage, where: str
) -> Message:
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


async def completion(reply: Reply, head: generations.Head, encoder: Encoder) -> schema.ChatCompletion:
    choices, usage = await generations.collect(reply)
    return schema.ChatCompletion(
        id=head.id,
        created=head.created,
        model=reply.model.root,
        choices=[schema.Choice(c.index, answer(c), logprobs(c.logprobs, encoder), c.finish_reason) for c in choices],
        usage=generations.usage_body(usage),
    )


def answer(choice: generations.Collected) -> schema.AnswerMessage:
    if not choice.calls:
        return schema.AnswerMessage(choice.text)
    calls = [schema.FunctionCall(call.id, schema.CalledFunction(call.name, call.arguments)) for call in choice.calls]
    return schema.AnswerMessage(choice.text or None, tool_calls=calls)


async def frames(
    reply: Reply, head: generations.Head, encoder: Encoder, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """One SSE frame a chunk: for each choice its role first, its finish_reason last; then the usage, if asked for."""
    usage: msgspec.UnsetType | None = None if with_usage else msgspec.UNSET

    def frame(choices: list[schema.ChunkChoice]) -> bytes:
        return event(
            schema.ChatCompletionChunk(
                id=head.id, created=head.created, model=reply.model.root, choices=choices, usage=usage
            )
        )

    tally = generations.Tally(reply.prompt_tokens)
    opened = False
    async with aclosing(reply.deltas) as deltas:
        async for delta in deltas:
            if not opened:
                opened = True
                for index in range(reply.n):
                    yield frame([schema.ChunkChoice(index, schema.Delta(role="assistant", content=""))])
            for choice in delta.choices:
                tally.add(choice, delta.num_cached_tokens)
                if choice.text or choice.logprobs:
                    content = schema.Delta(content=choice.text)
                    yield frame([schema.ChunkChoice(choice.index, content, logprobs(choice.logprobs, encoder))])
                if choice.calls:
                    calls = schema.Delta(tool_calls=[tools.delta(call) for call in choice.calls])
                    yield frame([schema.ChunkChoice(choice.index, calls)])
                if choice.finish_reason:
                    yield frame([schema.ChunkChoice(choice.index, schema.Delta(), None, choice.finish_reason)])
    if with_usage:
        yield event(
            schema.ChatCompletionChunk(
                id=head.id,
                created=head.created,
                model=reply.model.root,
                choices=[],
                usage=generations.usage_body(tally.usage),
            )
        )


def logprobs(positions: Iterable[TokenLogprobs] | None, encoder: Encoder) -> schema.ChoiceLogprobs | None:
    if positions is None:
        return None
    return schema.ChoiceLogprobs([token_logprob(position, encoder) for position in positions])
