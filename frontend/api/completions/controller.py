"""POST /v1/completions."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.types import ASGIApp

from frontend.api.completions import mapping
from frontend.api.completions.schema import Completion, CreateCompletion
from frontend.api.generations import Head
from frontend.domain.hermes.encoder import Encoder
from frontend.http.answers import answer
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.http.replies import EventStream, JsonReply
from frontend.http.trace_context import traceparent_of
from frontend.services.completions import CompletionService
from frontend.settings import Settings


class CompletionController(Controller):
    path = "/v1/completions"
    tags = ("Completions",)
    opt = needs("chat", gated=True)

    @post(
        status_code=200,
        responses={200: answer(Completion, description="With `stream: true`: server-sent events instead.")} | RESPONSES,
    )
    async def create(
        self,
        data: JSONBody[CreateCompletion],
        request: Request[Any, Any, Any],
        completions: NamedDependency[CompletionService],
        encoder: NamedDependency[Encoder],
        settings: NamedDependency[Settings],
    ) -> ASGIApp:
        """The continuation of a text, whole or as server-sent events."""
        task = mapping.to_domain(data, settings.limits.n, settings.limits.prompts)
        reply = await completions.open(task, principal_of(request), traceparent_of(request))
        head = Head.new("cmpl-")
        if task.stream:
            frames = mapping.frames(reply, head, encoder, data.wants_usage_chunk)
            return EventStream(
                frames, prime_timeout_s=settings.http.prime_timeout_s, keepalive_s=settings.http.keepalive_s
            )
        return JsonReply(lambda: mapping.completion(reply, head, encoder))
