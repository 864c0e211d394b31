"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody
from litestar.types import ASGIApp

from frontend.api.chat import mapping
from frontend.api.chat.schema import ChatCompletion, CreateChatCompletion
from frontend.api.generations import Head
from frontend.domain.hermes.encoder import Encoder
from frontend.http.auth import principal_of
from frontend.http.errors import RESPONSES
from frontend.http.replies import EventStream, JsonReply
from frontend.http.trace_context import traceparent_of
from frontend.services.chat import ChatService
from frontend.settings import Settings


class ChatController(Controller):
    path = "/v1/chat/completions"
    tags = ("Chat",)

    @post(
        status_code=200,
        responses={200: ResponseSpec(ChatCompletion, description="With `stream: true`: server-sent events instead.")}
        | RESPONSES,
    )
    async def create(
        self,
        data: JSONBody[CreateChatCompletion],
        request: Request[Any, Any, Any],
        chat: NamedDependency[ChatService],
        encoder: NamedDependency[Encoder],
        settings: NamedDependency[Settings],
    ) -> ASGIApp:
        """The assistant's next turn, whole or as server-sent events."""
        turn = mapping.to_domain(data, settings.limits.n)
        reply = await chat.open(turn, principal_of(request), traceparent_of(request))
        head = Head.new("chatcmpl-")
        if turn.stream:
            frames = mapping.frames(reply, head, encoder, data.wants_usage_chunk)
            return EventStream(
                frames, prime_timeout_s=settings.http.prime_timeout_s, keepalive_s=settings.http.keepalive_s
            )
        return JsonReply(lambda: mapping.completion(reply, head, encoder))
