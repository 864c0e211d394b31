"""Between the wire's chat and the domain's: what a request means, and how deltas become chunks or one completion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

import msgspec

from frontend.api import generations
from frontend.api.chat import schema
from frontend.api.parameters import sampling
from frontend.domain.errors import InvalidRequest
from frontend.domain.generation import TokenLogprobs
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.messages import Message
from frontend.http.replies import event
from frontend.services.chat import ChatTurn
from frontend.services.generate import Reply

ASKS_FOR_NOTHING: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
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
    for name, harmless in ASKS_FOR_NOTHING.items():
        value = getattr(data, name)
        if value is not None and value not in harmless:
            raise InvalidRequest(
                f"'{name}' is not supported by this service.", param=name, code="unsupported_parameter"
            )
    if data.top_logprobs is not None and not data.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    return ChatTurn(
        model=data.model,
        messages=[message(m, f"messages[{i}]") for i, m in enumerate(data.messages)],
        sampling=sampling(
            data,
            max_tokens=data.max_completion_tokens or data.max_tokens,
            logprobs=(data.top_logprobs or 0) if data.logprobs else None,
            max_n=max_n,
        ),
        stream=bool(data.stream),
    )


def message(data: schema.InputMessage, where: str) -> Message:
    if isinstance(data, schema.AssistantMessage):
        for name in ("tool_calls", "function_call", "audio"):
            if getattr(data, name):
                raise InvalidRequest(
                    f"'{name}' is not supported by this service.", param=f"{where}.{name}", code="unsupported_parameter"
                )
        if data.content is None and data.refusal is None:
            raise InvalidRequest("An assistant message needs content.", param=f"{where}.content")
        return Message("assistant", text(data.content) if data.content is not None else data.refusal or "")
    return Message("user" if isinstance(data, schema.UserMessage) else "system", text(data.content))


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
        choices=[
            schema.Choice(c.index, schema.AnswerMessage(c.text), logprobs(c.logprobs, encoder), c.finish_reason)
            for c in choices
        ],
        usage=generations.usage_body(usage),
    )


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
                    yield frame(
                        [
                            schema.ChunkChoice(
                                choice.index, schema.Delta(content=choice.text), logprobs(choice.logprobs, encoder)
                            )
                        ]
                    )
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


def token_logprob(position: TokenLogprobs, encoder: Encoder) -> schema.TokenLogprob:
    raw = encoder.token_bytes(position.sampled.token_id)
    top = []
    for candidate in position.top:
        piece = encoder.token_bytes(candidate.token_id)
        top.append(schema.TopLogprob(generations.shown(piece), candidate.logprob, list(piece)))
    return schema.TokenLogprob(generations.shown(raw), position.sampled.logprob, list(raw), top)
