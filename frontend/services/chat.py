"""One chat turn: messages in, a running reply out, alone or as a turn of a conversation."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import groupby
from typing import Any

import msgspec

from frontend.domain.context import Context, ContextTask
from frontend.domain.conversations import PageRequest, Window
from frontend.domain.errors import ConversationLocked, InvalidRequest
from frontend.domain.generation import ChoiceDelta, Constraint, GenerationDelta, Sampling
from frontend.domain.hermes.tool_calls import ToolCallParser
from frontend.domain.items import FileSearchResult, Item
from frontend.domain.messages import Chat, Message
from frontend.domain.principal import Principal
from frontend.domain.profiles import Profile, Profiles
from frontend.domain.storage import Database
from frontend.domain.tools import Tool, ToolCallDelta, ToolChoice
from frontend.services import chat_history
from frontend.services.chat_run import Begun, ConversationReply
from frontend.services.citations import cite
from frontend.services.context.builder import ContextBuilder
from frontend.services.context.summaries import SummaryService
from frontend.services.file_search import FileSearch
from frontend.services.generate import Generator, Reply
from frontend.services.limits.gate import Gate
from frontend.services.lookups import LookedUp, Lookups
from frontend.services.models import Model, ModelService
from frontend.services.responses.narrator import Narrator
from frontend.services.sessions import SessionService
from frontend.services.tokenize import Tokenizer
from frontend.services.turns import Stale, TurnKeeper
from frontend.services.windows import Windows

TRIES = 5
"""A turn that finds the conversation changed since it read it reads it again, so often."""
PAGE = 100
"""Items that are read at a time where all of a conversation are compared."""


class JsonFormat(msgspec.Struct, frozen=True):
    """An answer in JSON."""

    schema: Mapping[str, Any]
    """As the client sent it: the model reads it."""
    enforced: Mapping[str, Any]
    """As far as guided decoding knows its keywords."""


class ChatTurn(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """The completion's."""
    model: str
    messages: Sequence[Message]
    sampling: Sampling
    stream: bool
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice | None = None
    """None: no tool may be called."""
    file_search: FileSearch | None = None
    """What the request itself wants searched."""
    json_format: JsonFormat | None = None
    profile: str | None = None
    conversation_id: str | None = None
    session_id: str | None = None
    """Of the header X-Session-ID."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A turn of a conversation that could begin."""

    model: Model
    window: Window
    given: Sequence[Item]
    """To be kept with the answer."""
    task: ContextTask
    looked_up: LookedUp
    context: Context
    reply: Reply


class ChatService:
    def __init__(
        self,
        *,
        database: Database,
        models: ModelService,
        profiles: Profiles,
        sessions: SessionService,
        windows: Windows,
        contexts: ContextBuilder,
        tokenizer: Tokenizer,
        generator: Generator,
        keeper: TurnKeeper,
        summaries: SummaryService,
        lookups: Lookups,
        gate: Gate,
        max_messages: int,
    ) -> None:
        self._database = database
        self._models = models
        self._profiles = profiles
        self._sessions = sessions
        self._windows = windows
        self._contexts = contexts
        self._tokenizer = tokenizer
        self._generator = generator
        self._keeper = keeper
        self._summaries = summaries
        self._lookups = lookups
        self._gate = gate
        self._max_messages = max_messages

    async def open(self, turn: ChatTurn, principal: Principal, traceparent: str | None) -> Reply | ConversationReply:
        """Raises InvalidRequest and what is below it, NotFound, Unavailable; in a conversation, so does the first delta.

        The first delta raises what the gate does.
        """
        model = self._models.get(turn.model)
        if len(turn.messages) > self._max_messages:
            raise InvalidRequest(f"At most {self._max_messages} messages are taken.", param="messages")
        turn = await self._with_conversation(turn, principal.tenant)
        if turn.conversation_id is None:
            profile = self._profiles.get(turn.profile or principal.profile)
            looked_up = await self._lookups.of_messages(
                principal.tenant, turn.file_search, turn.messages, model.max_model_len
            )
            prompt_ids = await self._tokenizer.chat(chat(turn, profile, looked_up.retrieval))
            reply = self._reply(turn, model, profile, prompt_ids, looked_up, principal, traceparent)
            return self._gate.through(reply, principal)
        if turn.sampling.n != 1:
            raise InvalidRequest("A conversation goes on with one choice: 'n' must be 1.", param="n")
        prepared = await self._prepare(turn, model, turn.conversation_id, principal, traceparent)
        begin = partial(self._begin, turn, prepared, principal, traceparent)
        return ConversationReply(
            prepared.reply, partial(self._gate.enter, prepared.reply, principal), begin, self._keeper
        )

    def _reply(
        self,
        turn: ChatTurn,
        model: Model,
        profile: Profile,
        prompt_ids: Sequence[int],
        looked_up: LookedUp,
        principal: Principal,
        traceparent: str | None,
    ) -> Reply:
        wanted = constraint(turn.tool_choice, turn.json_format)
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
        deltas = reply.deltas
        if turn.tool_choice is not None:
            deltas = with_calls(deltas, reply.n)
        if looked_up.found is not None and turn.json_format is None:
            deltas = with_citations(deltas, reply.n, looked_up.found.passages)
        return msgspec.structs.replace(reply, deltas=deltas, degraded=looked_up.degraded)

    async def _with_conversation(self, turn: ChatTurn, tenant: str) -> ChatTurn:
        """The turn with its session's conversation."""
        if turn.session_id is None:
            return turn
        session = await self._sessions.resolve(tenant, turn.session_id, time.time())
        if turn.conversation_id not in (None, session.conversation_id):
            raise InvalidRequest("The session leads to another conversation.", param="conversation")
        return msgspec.structs.replace(turn, conversation_id=session.conversation_id)

    async def _prepare(
        self, turn: ChatTurn, model: Model, conversation_id: str, principal: Principal, traceparent: str | None
    ) -> Prepared:
        """Changes nothing."""
        window = await self._windows.of(principal.tenant, conversation_id, "conversation")
        profile = self._profiles.get(turn.profile or window.conversation.profile or principal.profile)
        given = chat_history.items_of(await self._new(turn.messages, window, principal.tenant))
        looked_up = await self._lookups.of_turn(principal.tenant, turn.file_search, window, given, model.max_model_len)
        task = context_task(turn, model, window, profile, given, looked_up)
        context = await self._contexts.build(task)
        reply = self._reply(turn, model, profile, context.prompt_ids, looked_up, principal, traceparent)
        return Prepared(
            model=model, window=window, given=given, task=task, looked_up=looked_up, context=context, reply=reply
        )

    async def _new(self, sent: Sequence[Message], window: Window, tenant: str) -> Sequence[Message]:
        """Those that the conversation does not hold. Raises InvalidRequest."""
        if not chat_history.is_resent(sent):
            return chat_history.behind_question(sent, window)
        comparison = chat_history.Comparison(sent)
        if not window.conversation.trim.upto:
            comparison.read([*window.pinned, *window.history])
            return comparison.rest()
        page = PageRequest(limit=PAGE, order="asc")
        async with self._database.reading() as uow:
            while True:
                found = await uow.items.page(tenant, window.conversation.id, page)
                comparison.read(stored for stored in found.data if stored.seq <= window.conversation.head)
                if not found.has_more:
                    return comparison.rest()
                page = msgspec.structs.replace(page, after=found.data[-1].item.id)

    async def _begin(self, turn: ChatTurn, prepared: Prepared, principal: Principal, traceparent: str | None) -> Begun:
        """Raises ConversationLocked, and what `_prepare` raises: the conversation may have changed since."""
        tenant, conversation_id = principal.tenant, prepared.window.conversation.id
        for _ in range(TRIES):
            window, trim = prepared.window, prepared.context.trim
            try:
                begun = await self._keeper.begin(tenant, turn.id, items=prepared.given, window=window, trim=trim)
                narrator = Narrator(prepared.looked_up.found, cites=turn.json_format is None)
                return Begun(begun, prepared.reply, narrator, partial(self._after_turn, prepared, tenant))
            except Stale:
                prepared = await self._prepare(turn, prepared.model, conversation_id, principal, traceparent)
        raise ConversationLocked

    def _after_turn(self, prepared: Prepared, tenant: str, answer_tokens: int) -> None:
        self._summaries.after_turn(
            tenant,
            prepared.window.conversation.id,
            model=prepared.model,
            task=prepared.task,
            context=prepared.context,
            answer_tokens=answer_tokens,
        )
        self._lookups.after_turn(tenant, prepared.window.conversation.id)


def context_task(
    turn: ChatTurn, model: Model, window: Window, profile: Profile, given: Sequence[Item], looked_up: LookedUp
) -> ContextTask:
    """Raises InvalidRequest if nothing is given, and there is no question that could be asked again."""
    asked, history, switches = given, window.history, window.conversation.context
    if not given:
        again = chat_history.asked_again(turn.messages, window)
        asked, history = [stored.item for stored in again], [s for s in history if s.seq < again[0].seq]
    return ContextTask(
        window_tokens=model.max_model_len,
        profile=profile,
        tools=turn.tools,
        json_schema=turn.json_format.schema if turn.json_format else None,
        max_output_tokens=turn.sampling.max_tokens,
        switches=msgspec.structs.replace(switches, retrieval=switches.retrieval or turn.file_search is not None),
        trim=window.conversation.trim,
        pinned=window.pinned,
        history=history,
        input=asked,
        memory=looked_up.memory,
        retrieval=looked_up.retrieval,
        input_param="messages",
    )


def chat(turn: ChatTurn, profile: Profile, found: Sequence[str]) -> Chat:
    """`found`: texts that stand behind the messages."""
    system = [Message("system", profile.system)] if profile.system is not None else []
    return Chat(
        messages=[*system, *turn.messages, *(Message("system", text) for text in found)],
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
            choices = [piece for choice in delta.choices for piece in parsed(choice, parsers[choice.index])]
            yield msgspec.structs.replace(delta, choices=choices)


async def with_citations(
    deltas: AsyncGenerator[GenerationDelta, None], n: int, passages: Sequence[FileSearchResult]
) -> AsyncGenerator[GenerationDelta, None]:
    """The same generation; what ends a choice has the citations of all its text."""
    texts: list[list[str]] = [[] for _ in range(n)]
    async with aclosing(deltas):
        async for delta in deltas:
            choices = []
            for choice in delta.choices:
                texts[choice.index].append(choice.text)
                if choice.finish_reason is not None:
                    cited = cite("".join(texts[choice.index]), passages)
                    choice = msgspec.structs.replace(choice, citations=cited)
                choices.append(choice)
            yield msgspec.structs.replace(delta, choices=choices)


def parsed(choice: ChoiceDelta, parser: ToolCallParser) -> Iterator[ChoiceDelta]:
    """What the choice gained, in its order: text and calls are separate pieces, of which the last one ends it."""
    pieces = list(parser.feed(choice.text))
    if choice.finish_reason is not None:
        pieces += parser.finish()
    calls_end_it = choice.finish_reason == "stop" and parser.called and not parser.cut
    finish = "tool_calls" if calls_end_it else choice.finish_reason
    runs = [list(run) for _, run in groupby(pieces, key=lambda piece: isinstance(piece, str))] or [[""]]
    for number, run in enumerate(runs):
        first, last = number == 0, number == len(runs) - 1
        text = "".join(piece for piece in run if isinstance(piece, str))
        calls = [piece for piece in run if isinstance(piece, ToolCallDelta)]
        logprobs = choice.logprobs if first or choice.logprobs is None else []
        yield ChoiceDelta(choice.index, text, choice.num_tokens * first, logprobs, finish if last else None, calls)
