"""/v1/chat/completions: turns, and those that are stored."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from litestar.types import ASGIApp

from frontend.api.chat import mapping, replies, schema, stored, stored_schema
from frontend.api.generations import Head
from frontend.api.scopes import require_for_turn
from frontend.domain.conversations import PageRequest
from frontend.domain.hermes.encoder import Encoder
from frontend.http.answers import answer
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.http.pagination import ID, METADATA_FILTER, page_of
from frontend.http.replies import EventStream, JsonReply
from frontend.http.trace_context import traceparent_of
from frontend.services.chat import ChatService
from frontend.services.stored_completions import StoredCompletionService
from frontend.settings import Settings

AnyRequest = Request[Any, Any, Any]
Stored = NamedDependency[StoredCompletionService]
Page = NamedDependency[PageRequest]
SessionId = Annotated[
    str | None,
    HeaderParameter(
        name="X-Session-ID", pattern=ID, description="Ours: a session, whose conversation this turn belongs to."
    ),
]
Model = Annotated[
    str | None, QueryParameter(pattern=r"^[^\x00]{1,256}$", description="Only completions of this model.")
]
MISSING = {404: RESPONSES[404]}
KEPT = {200: answer(schema.ChatCompletion, description="The completion, as it was answered.")} | MISSING
OLDEST_FIRST = page_of(order="asc")


class ChatController(Controller):
    path = "/v1/chat/completions"
    tags = ("Chat",)
    opt = needs("chat")

    @post(
        status_code=200,
        opt=needs("chat", gated=True),
        responses={200: answer(schema.ChatCompletion, description="With `stream: true`: server-sent events instead.")}
        | RESPONSES,
    )
    async def create(
        self,
        data: JSONBody[schema.CreateChatCompletion],
        request: AnyRequest,
        chat: NamedDependency[ChatService],
        stored_completions: Stored,
        encoder: NamedDependency[Encoder],
        settings: NamedDependency[Settings],
        session_id: SessionId = None,
    ) -> ASGIApp:
        """The assistant's next turn, whole or as server-sent events."""
        principal, head = principal_of(request), Head.new("chatcmpl-")
        turn = mapping.to_domain(data, head.id, session_id, settings.limits.n)
        require_for_turn(principal, turn)
        reply = await chat.open(turn, principal, traceparent_of(request))
        keep = stored.Keep(stored_completions, principal.tenant, data) if data.store else None
        if turn.stream:
            frames = replies.frames(reply, head, encoder, data.wants_usage_chunk, keep)
            return EventStream(
                frames, prime_timeout_s=settings.http.prime_timeout_s, keepalive_s=settings.http.keepalive_s
            )
        return JsonReply(lambda: replies.completion(reply, head, encoder, keep))

    @get(dependencies={"page": OLDEST_FIRST, "metadata": METADATA_FILTER})
    async def list(
        self,
        request: AnyRequest,
        stored_completions: Stored,
        page: Page,
        metadata: NamedDependency[dict[str, str]],
        model: Model = None,
    ) -> stored_schema.ChatCompletionList:
        """Those that were stored, oldest first; with `metadata[KEY]=VALUE` those that have all of these."""
        tenant = principal_of(request).tenant
        return stored.completions(await stored_completions.page(tenant, page, model, metadata))

    @get("/{completion_id:str}", responses=KEPT)
    async def retrieve(
        self, completion_id: FromPath[str], request: AnyRequest, stored_completions: Stored
    ) -> Response[bytes]:
        """One that was stored."""
        return stored.body(await stored_completions.get(principal_of(request).tenant, completion_id))

    @post("/{completion_id:str}", status_code=200, responses=KEPT)
    async def update(
        self,
        completion_id: FromPath[str],
        data: JSONBody[stored_schema.UpdateChatCompletion],
        request: AnyRequest,
        stored_completions: Stored,
    ) -> Response[bytes]:
        """Its metadata; nothing else of it can be changed."""
        tenant = principal_of(request).tenant
        return stored.body(await stored_completions.update(tenant, completion_id, data.metadata or {}))

    @delete("/{completion_id:str}", status_code=200, responses=MISSING)
    async def remove(
        self, completion_id: FromPath[str], request: AnyRequest, stored_completions: Stored
    ) -> stored_schema.ChatCompletionDeleted:
        """Forgets it; the conversation that it may be a turn of stays as it is."""
        await stored_completions.delete(principal_of(request).tenant, completion_id)
        return stored_schema.ChatCompletionDeleted(id=completion_id)

    @get("/{completion_id:str}/messages", responses=MISSING, dependencies={"page": OLDEST_FIRST})
    async def list_messages(
        self, completion_id: FromPath[str], request: AnyRequest, stored_completions: Stored, page: Page
    ) -> stored_schema.ChatCompletionMessageList:
        """The messages of its request, as they were sent."""
        return stored.messages(await stored_completions.get(principal_of(request).tenant, completion_id), page)
