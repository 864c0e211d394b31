"""How a response comes to be made: what it goes on from, its prompt, its turn."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import takewhile

import msgspec

from frontend.domain import ids
from frontend.domain.context import Context, ContextTask
from frontend.domain.conversations import ContextSettings, Trim, Window
from frontend.domain.errors import ConversationLocked, InvalidRequest, NotFound, PreviousResponseNotFound
from frontend.domain.items import Item, ItemReference, StoredItem
from frontend.domain.principal import Principal
from frontend.domain.profiles import Profile, Profiles
from frontend.domain.responses import Response, ResponseEvent
from frontend.domain.storage import Database
from frontend.services.added_items import resolved
from frontend.services.chat import constraint, with_calls, with_defaults
from frontend.services.context.builder import ContextBuilder
from frontend.services.context.summaries import SummaryService
from frontend.services.context.transcript import is_system
from frontend.services.file_search import messages_of
from frontend.services.generate import Generator, Reply
from frontend.services.limits.gate import Entry, Gate
from frontend.services.lookups import LookedUp, Lookups
from frontend.services.models import Model, ModelService
from frontend.services.resource_ids import could_be
from frontend.services.responses.narrator import Narrator
from frontend.services.responses.run import ResponseRun
from frontend.services.responses.task import ResponseTask
from frontend.services.sessions import SessionService
from frontend.services.turns import OpenTurn, Stale, TurnKeeper
from frontend.services.windows import Windows

TRIES = 5
"""A turn that finds the conversation changed since it read it reads it again, so often."""
UNBOUNDED = 2**31
"""A window that holds whatever is counted."""


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn goes on from: a conversation, a chain of responses, or nothing."""

    window: Window | None = None
    chain: Sequence[StoredItem] = ()
    dropped: int = 0


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    task: ResponseTask
    model: Model
    past: Past
    given: Sequence[Item]
    context_task: ContextTask
    looked_up: LookedUp
    context: Context
    response: Response
    reply: Reply


class ResponseMaker:
    def __init__(
        self,
        *,
        database: Database,
        models: ModelService,
        profiles: Profiles,
        sessions: SessionService,
        windows: Windows,
        contexts: ContextBuilder,
        generator: Generator,
        keeper: TurnKeeper,
        summaries: SummaryService,
        lookups: Lookups,
        gate: Gate,
    ) -> None:
        self._database = database
        self._models = models
        self._profiles = profiles
        self._sessions = sessions
        self._windows = windows
        self._contexts = contexts
        self._generator = generator
        self._keeper = keeper
        self._summaries = summaries
        self._lookups = lookups
        self._gate = gate

    async def prepare(self, task: ResponseTask, principal: Principal, traceparent: str | None) -> Prepared:
        """Changes nothing. Raises InvalidRequest and what is below it, NotFound, Unavailable."""
        task = await self._with_conversation(task, principal.tenant)
        model = self._models.get(task.model)
        past, given = await self._past(task, principal.tenant), await self._given(task, principal.tenant)
        profile = self._profile(task, past, principal)
        looked_up = await self._look_up(task, past, given, principal.tenant, model.max_model_len)
        to_build = context_task(task, past, given, profile, model.max_model_len, looked_up)
        context = await self._contexts.build(to_build)
        wanted = constraint(task.tool_choice, task.json_format)
        reply = self._generator.open(
            model,
            context.prompt_ids,
            with_defaults(task.sampling, profile, wanted),
            constraint=wanted,
            default_max_tokens=profile.max_tokens,
            prompt_param="input",
            stream=task.stream or task.background,
            principal=principal,
            traceparent=traceparent,
        )
        if task.tool_choice is not None:
            reply = msgspec.structs.replace(reply, deltas=with_calls(reply.deltas, reply.n))
        return Prepared(
            task=task,
            model=model,
            past=past,
            given=given,
            context_task=to_build,
            looked_up=looked_up,
            context=context,
            response=accepted(task, model, context, past, looked_up),
            reply=reply,
        )

    async def begin(
        self, prepared: Prepared, entry: Entry, principal: Principal, traceparent: str | None
    ) -> ResponseRun:
        """`entry`: what the gate gave; in the background its place is waited for while the response runs.

        Raises ConversationLocked, and what `prepare` raises: the conversation may have changed since.
        """
        for _ in range(TRIES):
            try:
                turn = await self._take_turn(prepared, principal.tenant)
                reply = prepared.reply
                follow = self._gate.patiently if prepared.task.background else self._gate.follow
                return ResponseRun(
                    prepared.response,
                    msgspec.structs.replace(reply, deltas=follow(reply, entry)),
                    turn,
                    self._keeper,
                    streams=prepared.task.stream,
                    narrator=Narrator(prepared.looked_up.found, cites=prepared.task.json_format is None),
                    when_stored=partial(self._after_turn, prepared, principal.tenant),
                )
            except Stale:
                prepared = await self.prepare(prepared.task, principal, traceparent)
        raise ConversationLocked

    def _after_turn(self, prepared: Prepared, tenant: str, answer_tokens: int) -> None:
        if prepared.past.window is not None:
            self._summaries.after_turn(
                tenant,
                prepared.past.window.conversation.id,
                model=prepared.model,
                task=prepared.context_task,
                context=prepared.context,
                answer_tokens=answer_tokens,
            )
            self._lookups.after_turn(tenant, prepared.past.window.conversation.id)

    async def _take_turn(self, prepared: Prepared, tenant: str) -> OpenTurn | None:
        task, past = prepared.task, prepared.past
        if not task.store and past.window is None:
            return None
        return await self._keeper.begin(
            tenant,
            prepared.response.id,
            items=prepared.given,
            window=past.window,
            trim=prepared.context.trim,
            response=prepared.response if task.store else None,
        )

    async def events(
        self, prepared: Prepared, principal: Principal, traceparent: str | None
    ) -> AsyncGenerator[ResponseEvent, None]:
        """Enters and begins when it is first read: who never does, or is not let in, leaves nothing behind."""
        async with self._gate.enter(prepared.reply, principal) as entry:
            run = await self.begin(prepared, entry, principal, traceparent)
            async with aclosing(run.events()) as events:
                async for event in events:
                    yield event

    async def count_tokens(self, task: ResponseTask, principal: Principal) -> int:
        """Of the prompt that the task would have, without a look at the window."""
        self._models.get(task.model)
        task = await self._with_conversation(task, principal.tenant)
        past, given = await self._past(task, principal.tenant), await self._given(task, principal.tenant)
        profile = self._profile(task, past, principal)
        window_tokens = self._models.get(task.model).max_model_len
        looked_up = await self._look_up(task, past, given, principal.tenant, window_tokens)
        context = await self._contexts.build(context_task(task, past, given, profile, UNBOUNDED, looked_up))
        return len(context.prompt_ids)

    async def items(self, task: ResponseTask, tenant: str) -> tuple[Model, list[Item]]:
        """What the task goes on from, and its input."""
        model = self._models.get(task.model)
        past, given = await self._past(task, tenant), await self._given(task, tenant)
        return model, [*(stored.item for stored in past.chain), *given]

    async def _with_conversation(self, task: ResponseTask, tenant: str) -> ResponseTask:
        """The task with its session's conversation."""
        if task.session_id is None:
            return task
        session = await self._sessions.resolve(tenant, task.session_id, time.time())
        if task.conversation_id not in (None, session.conversation_id):
            raise InvalidRequest("The session leads to another conversation.", param="conversation")
        if task.previous_response_id is not None:
            raise InvalidRequest(
                "A session and 'previous_response_id' cannot be used together.", param="previous_response_id"
            )
        return msgspec.structs.replace(task, conversation_id=session.conversation_id)

    async def _past(self, task: ResponseTask, tenant: str) -> Past:
        if task.conversation_id is not None:
            return Past(window=await self._windows.of(tenant, task.conversation_id, "conversation"))
        if task.previous_response_id is None:
            return Past()
        try:
            async with self._database.reading() as uow:
                previous = await uow.responses.get(tenant, known_form(task.previous_response_id))
                chain = await uow.responses.chain(tenant, previous.id)
        except NotFound as exc:
            raise PreviousResponseNotFound(task.previous_response_id) from exc
        return Past(chain=chain, dropped=previous.dropped)

    async def _given(self, task: ResponseTask, tenant: str) -> list[Item]:
        if not any(isinstance(item, ItemReference) for item in task.input):
            return [item for item in task.input if not isinstance(item, ItemReference)]
        async with self._database.reading() as uow:
            return await resolved(uow, tenant, task.input)

    async def _look_up(
        self, task: ResponseTask, past: Past, given: Sequence[Item], tenant: str, window_tokens: int
    ) -> LookedUp:
        """Raises NotFound, InvalidRequest, Unavailable, for what the request itself wants searched."""
        if past.window is not None:
            return await self._lookups.of_turn(tenant, task.file_search, past.window, given, window_tokens)
        said = messages_of([*(stored.item for stored in past.chain), *given])
        return await self._lookups.of_messages(tenant, task.file_search, said, window_tokens)

    def _profile(self, task: ResponseTask, past: Past, principal: Principal) -> Profile:
        of_conversation = past.window.conversation.profile if past.window is not None else None
        return self._profiles.get(task.profile or of_conversation or principal.profile)


def accepted(task: ResponseTask, model: Model, context: Context, past: Past, looked_up: LookedUp) -> Response:
    return Response(
        id=ids.new("resp_"),
        model=model.root,
        status="queued" if task.background else "in_progress",
        parameters=task.parameters,
        created_at=int(time.time()),
        previous_response_id=task.previous_response_id,
        conversation_id=task.conversation_id,
        background=task.background,
        dropped=0 if past.window is not None else context.trim.upto,
        degraded=looked_up.degraded,
    )


def context_task(
    task: ResponseTask,
    past: Past,
    given: Sequence[Item],
    profile: Profile,
    window_tokens: int,
    looked_up: LookedUp,
) -> ContextTask:
    """Conversations are trimmed unless the request forbids it, chains only if it asks for it."""
    window = past.window
    if window is not None:
        switches = window.conversation.context
        switches = msgspec.structs.replace(
            switches,
            trim=switches.trim and task.truncation != "disabled",
            retrieval=switches.retrieval or task.file_search is not None,
        )
        trim, pinned, history = window.conversation.trim, window.pinned, window.history
    else:
        switches = msgspec.structs.replace(ContextSettings(), trim=task.truncation == "auto")
        trim = Trim(upto=past.dropped) if switches.trim else Trim()
        pinned = list(takewhile(lambda stored: is_system(stored.item), past.chain))
        history = past.chain[len(pinned) :]
    return ContextTask(
        window_tokens=window_tokens,
        profile=profile,
        instructions=task.instructions,
        tools=task.tools,
        json_schema=task.json_format.schema if task.json_format else None,
        max_output_tokens=task.sampling.max_tokens,
        switches=switches,
        trim=trim,
        pinned=pinned,
        history=history,
        input=given,
        memory=looked_up.memory,
        retrieval=looked_up.retrieval,
    )


def known_form(response_id: str) -> str:
    """Raises NotFound for what cannot be a response's id."""
    if not could_be(response_id):
        raise NotFound(f"Response with id {response_id!r} not found.", param="response_id")
    return response_id
