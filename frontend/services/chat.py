"""One chat turn: messages in, a running reply out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from frontend.domain.errors import InvalidRequest
from frontend.domain.generation import ChoiceDelta, Constraint, GenerationDelta, Sampling
from frontend.domain.hermes.tool_calls import ToolCallParser
from frontend.domain.messages import Chat, Message
from frontend.domain.principal import Principal
from frontend.domain.profiles import Profile, Profiles
from frontend.domain.tools import Tool, ToolCallDelta, ToolChoice
from frontend.services.generate import Generator, Reply
from frontend.services.models import ModelService
from frontend.services.tokenize import Tokenizer


class JsonFormat(msgspec.Struct, frozen=True):
    """An answer in JSON."""

    schema: Mapping[str, Any]
    """As the client sent it: the model reads it."""
    enforced: Mapping[str, Any]
    """As far as guided decoding knows its keywords."""


class ChatTurn(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    messages: Sequence[Message]
    sampling: Sampling
    stream: bool
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice | None = None
    """None: no tool may be called."""
    json_format: JsonFormat | None = None
    profile: str | None = None


class ChatService:
    def __init__(
        self, models: ModelService, profiles: Profiles, tokenizer: Tokenizer, generator: Generator, max_messages: int
    ) -> None:
        self._models = models
        self._profiles = profiles
        self._tokenizer = tokenizer
        self._generator = generator
        self._max_messages = max_messages

    async def open(self, turn: ChatTurn, principal: Principal, traceparent: str | None) -> Reply:
        """Raises ModelNotFound, InvalidRequest, ContextLengthExceeded."""
        model = self._models.get(turn.model)
        profile = self._profiles.get(turn.profile)
        if len(turn.messages) > self._max_messages:
            raise InvalidRequest(f"At most {self._max_messages} messages are taken.", param="messages")
        wanted = constraint(turn.tool_choice, turn.json_format)
        prompt_ids = await self._tokenizer.chat(chat(turn, profile))
        reply = self._generator.open(
            model,
            prompt_ids,
            with_defaults(turn.sampling, profile, wanted),
            constraint=wanted,
            default_max_tokens=profile.max_tokens,
            prompt_param="messages",
            stream=turn.stream,
            principal=principal,
            traceparent=traceparent,
        )
        if turn.tool_choice is None:
            return reply
        return msgspec.structs.replace(reply, deltas=with_calls(reply.deltas, reply.n))


def chat(turn: ChatTurn, profile: Profile) -> Chat:
    system = [Message("system", profile.system)] if profile.system is not None else []
    return Chat(
        messages=[*system, *turn.messages],
        tools=turn.tools,
        tool_style=profile.tool_style,
        json_schema=turn.json_format.schema if turn.json_format and profile.json_prompt else None,
    )


def with_defaults(sampling: Sampling, profile: Profile, wanted: Constraint | None) -> Sampling:
    """The profile's words where the request has none. Its stop rules are for text: they would cut JSON and calls."""
    defaults = {
        name: value
        for name, value in msgspec.structs.asdict(profile.sampling).items()
        if value is not None and getattr(sampling, name) is None
    }
    stops = profile.stop if wanted is None else ()
    return msgspec.structs.replace(sampling, **defaults, stop=[*sampling.stop, *stops])


def constraint(tools: ToolChoice | None, json_format: JsonFormat | None) -> Constraint | None:
    if tools is None and json_format is None:
        return None
    return Constraint(tools=tools, json_schema=json_format.enforced if json_format else None)


async def with_calls(deltas: AsyncGenerator[GenerationDelta, None], n: int) -> AsyncGenerator[GenerationDelta, None]:
    """The same generation with the calls taken out of its text."""
    parsers = [ToolCallParser() for _ in range(n)]
    async with aclosing(deltas):
        async for delta in deltas:
            choices = [parsed(choice, parsers[choice.index]) for choice in delta.choices]
            yield msgspec.structs.replace(delta, choices=choices)


def parsed(choice: ChoiceDelta, parser: ToolCallParser) -> ChoiceDelta:
    text = ""
    calls: list[ToolCallDelta] = []
    pieces = list(parser.feed(choice.text))
    if choice.finish_reason is not None:
        pieces += parser.finish()
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            calls.append(piece)
    calls_end_it = choice.finish_reason == "stop" and parser.called and not parser.cut
    finish = "tool_calls" if calls_end_it else choice.finish_reason
    return msgspec.structs.replace(choice, text=text, calls=calls, finish_reason=finish)
