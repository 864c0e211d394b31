"""/v1/responses."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from litestar.types import ASGIApp

from frontend.api.items.schema import INCLUDABLE, LOGPROBS, RESULTS
from frontend.api.responses import mapping, schema
from frontend.api.responses.events import frames
from frontend.api.responses.mapping import Bodies
from frontend.api.scopes import require_for_turn
from frontend.domain.conversations import PageRequest
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.seal import Seal
from frontend.http.answers import answer
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.http.pagination import ID, include_of, page_of
from frontend.http.replies import EventStream, JsonReply
from frontend.http.trace_context import traceparent_of
from frontend.services.responses.service import ResponseService
from frontend.services.responses.task import Run
from frontend.settings import HttpSettings, Settings

AnyRequest = Request[Any, Any, Any]
Responses = NamedDependency[ResponseService]
Included = NamedDependency[frozenset[str]]
SessionId = Annotated[
    str | None,
    HeaderParameter(
        name="X-Session-ID", pattern=ID, description="Ours: a session, whose conversation this turn belongs to."
    ),
]
Stream = Annotated[bool, QueryParameter(description="The events instead, as they came and as they come.")]
After = Annotated[
    int | None, QueryParameter(ge=0, description="With `stream`: only events behind this `sequence_number`.")
]
MISSING = {404: RESPONSES[404]}
INCLUDE = {"include": include_of(INCLUDABLE)}
WHOLE = {200: answer(schema.ResponseBody, description="With `stream: true`: server-sent events instead.")}


class ResponseController(Controller):
    path = "/v1/responses"
    tags = ("Responses",)
    opt = needs("chat")

    @post(status_code=200, opt=needs("chat", gated=True), responses=WHOLE | RESPONSES)
    async def create(
        self,
        data: JSONBody[schema.CreateResponse],
        request: AnyRequest,
        responses: Responses,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
        settings: NamedDependency[Settings],
        session_id: SessionId = None,
    ) -> ASGIApp:
        """The model's next turn: whole, as server-sent events, or at once and `queued` with `background`."""
        principal = principal_of(request)
        mine = seal.of(principal.tenant)
        task = mapping.to_task(data, session_id, mine)
        require_for_turn(principal, task)
        run = await responses.create(task, principal, traceparent_of(request))
        bodies = Bodies(
            encoder, mine, with_logprobs=mapping.wants_logprobs(data), with_results=mapping.wants_results(data)
        )
        if task.stream:
            return event_stream(run, bodies, settings.http)
        return JsonReply(lambda: bodies.ended(run))

    @get("/{response_id:str}", responses=WHOLE | MISSING, dependencies=INCLUDE)
    async def retrieve(
        self,
        response_id: FromPath[str],
        request: AnyRequest,
        responses: Responses,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
        settings: NamedDependency[Settings],
        include: Included,
        stream: Stream = False,
        starting_after: After = None,
    ) -> ASGIApp:
        """A response as it is now, or its events from the first, or from `starting_after`, to the last."""
        tenant = principal_of(request).tenant
        bodies = Bodies(encoder, seal.of(tenant), with_logprobs=LOGPROBS in include, with_results=RESULTS in include)
        if stream:
            after = -1 if starting_after is None else starting_after
            return event_stream(await responses.follow(tenant, response_id, after), bodies, settings.http)

        async def whole() -> schema.ResponseBody:
            return bodies.response(await responses.get(tenant, response_id))

        return JsonReply(whole)

    @delete("/{response_id:str}", status_code=200, responses=MISSING)
    async def delete(
        self, response_id: FromPath[str], request: AnyRequest, responses: Responses
    ) -> schema.DeletedResponse:
        """Deletes it, running or not; its items stay where they are a conversation's."""
        await responses.delete(principal_of(request).tenant, response_id)
        return schema.DeletedResponse(response_id)

    @post("/{response_id:str}/cancel", status_code=200, responses=MISSING)
    async def cancel(
        self,
        response_id: FromPath[str],
        request: AnyRequest,
        responses: Responses,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
    ) -> schema.ResponseBody:
        """Ends a response that runs in the background; 400 if it has ended by itself."""
        tenant = principal_of(request).tenant
        return Bodies(encoder, seal.of(tenant)).response(await responses.cancel(tenant, response_id))

    @get("/{response_id:str}/input_items", responses=MISSING, dependencies=INCLUDE | {"page": page_of()})
    async def input_items(
        self,
        response_id: FromPath[str],
        request: AnyRequest,
        responses: Responses,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
        page: NamedDependency[PageRequest],
        include: Included,
    ) -> schema.InputItemList:
        """What it was given as input, the newest first."""
        tenant = principal_of(request).tenant
        bodies = Bodies(encoder, seal.of(tenant), with_logprobs=LOGPROBS in include, with_results=RESULTS in include)
        return bodies.input_page(await responses.input_items(tenant, response_id, page))

    @post("/input_tokens", status_code=200, responses=MISSING)
    async def input_tokens(
        self,
        data: JSONBody[schema.CountInputTokens],
        request: AnyRequest,
        responses: Responses,
        seal: NamedDependency[Seal],
        session_id: SessionId = None,
    ) -> schema.InputTokens:
        """How many tokens the prompt of such a response would have. Makes none."""
        principal = principal_of(request)
        task = mapping.to_prompt_task(data, session_id, seal.of(principal.tenant))
        require_for_turn(principal, task)
        return schema.InputTokens(await responses.count_tokens(task, principal))

    @post(
        "/compact",
        opt=needs("chat", gated=True),
        status_code=200,
        responses={200: answer(schema.CompactionResult, description="What to go on from.")} | RESPONSES,
    )
    async def compact(
        self,
        data: JSONBody[schema.CompactInput],
        request: AnyRequest,
        responses: Responses,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
    ) -> ASGIApp:
        """A summary in the place of what was said, sealed: it is sent back as the beginning of the next input."""
        principal = principal_of(request)
        mine = seal.of(principal.tenant)
        task = mapping.to_compaction_task(data, mine)

        async def compacted() -> schema.CompactionResult:
            compaction = await responses.compact(task, principal, traceparent_of(request))
            return Bodies(encoder, mine).compaction(compaction)

        return JsonReply(compacted)


def event_stream(run: Run, bodies: Bodies, http: HttpSettings) -> EventStream:
    return EventStream(frames(run, bodies), prime_timeout_s=http.prime_timeout_s, keepalive_s=http.keepalive_s)
