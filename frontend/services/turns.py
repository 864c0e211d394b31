"""Turns that are kept: one writer per conversation, all of a turn or nothing of it, and an end for each of them.

A running turn is a row: the lease on its conversation, and on its response. It is taken in the transaction that makes the
response known, renewed while its process lives, and given back in the transaction that stores the turn. Who has lost it
cannot store anything (docs/decisions/0009). Whoever notices that a turn's process is gone ends it: its response has failed,
and its conversation is as it was before.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import msgspec
import structlog

from frontend.domain.conversations import Conversation, Trim, Window
from frontend.domain.errors import ConversationLocked, NotFound, QuotaExceeded, ServiceError, Unavailable
from frontend.domain.items import Item, StoredItem
from frontend.domain.ports import HotState
from frontend.domain.responses import Response, ResponseError, ResponseEvent
from frontend.domain.storage import Database, Turn, UnitOfWork
from frontend.observability import tracing
from frontend.services.process import is_dead, this_process

log = structlog.get_logger("hermes2.turns")
RENEWALS_PER_LEASE = 3
ANY_NUMBER = 2**31
"""Of items: that there is room was seen when the turn began."""


class TurnLost(Unavailable):
    """The lease ran out, or the conversation was deleted: nothing of the turn was stored."""

    code = "turn_lost"

    def __init__(self) -> None:
        super().__init__("The turn took longer than its lease, or its conversation was deleted; nothing was stored.")


class Stale(Exception):
    """Another turn has ended since the window was read: read it again."""


class OpenTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that has begun. Exactly one of TurnKeeper's `store` and `drop` ends it."""

    lease: Turn
    input: Sequence[Item]
    window: Window | None
    """The conversation as the turn found it, with its trim; None outside of a conversation."""
    response: Response | None
    """None for a turn that no one can ask for later: only its conversation keeps it."""


class TurnKeeper:
    def __init__(
        self,
        database: Database,
        hot_state: HotState,
        *,
        lease_s: float,
        most_items: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._hot_state = hot_state
        self._lease_s = lease_s
        self._most_items = most_items
        self._clock = clock
        self._owner = this_process()
        self._open: set[str] = set()
        self._unended: list[tuple[OpenTurn, Response | None]] = []
        """Turns that ended while the database was away: their leases are given back when it returns."""
        self._enders: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the leases of this process, and ends the turns of processes that are gone, from the very beginning."""
        stop = asyncio.Event()
        keeper = asyncio.create_task(self._keep(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait([keeper, *self._enders])

    async def begin(
        self,
        tenant: str,
        turn_id: str,
        *,
        items: Sequence[Item],
        window: Window | None = None,
        trim: Trim | None = None,
        response: Response | None = None,
    ) -> OpenTurn:
        """Takes the lease, and stores the response as it is now. `trim`: where the turn's prompt begins from now on.

        Raises ConversationLocked, Stale, QuotaExceeded, NotFound for a conversation that is gone, Unavailable. If it is
        cancelled, nothing has begun.
        """
        conversation = window.conversation if window else None
        lease = Turn(
            id=turn_id,
            tenant=tenant,
            conversation_id=conversation.id if conversation else None,
            owner=self._owner,
            lease_until=self._clock() + self._lease_s,
        )
        turn = OpenTurn(lease=lease, input=items, window=window, response=response)
        beginning = asyncio.create_task(self._begin_after_orphans(turn, trim))
        try:
            with tracing.span("turn.begin"):
                trimmed = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            self._spawn(self._undo(turn, beginning))
            raise
        if window is not None and trimmed is not None:
            window = msgspec.structs.replace(window, conversation=trimmed, history=behind(window.history, trimmed.trim))
        return msgspec.structs.replace(turn, window=window)

    async def _undo(self, turn: OpenTurn, beginning: asyncio.Task[Conversation | None]) -> None:
        await asyncio.wait([beginning])
        if beginning.exception() is None:
            await self._drop(turn, None, ())

    async def _begin_after_orphans(self, turn: OpenTurn, trim: Trim | None) -> Conversation | None:
        try:
            return await self._begin(turn, trim)
        except ConversationLocked:
            if not await self.end_orphans():
                raise
            return await self._begin(turn, trim)
        except Unavailable:  # it may have begun all the same: the answer was lost
            self._unended.append((turn, None))
            raise

    async def _begin(self, turn: OpenTurn, trim: Trim | None) -> Conversation | None:
        lease, before = turn.lease, turn.window.conversation if turn.window else None
        async with self._database.writing() as uow:
            await uow.turns.begin(lease, self._clock())
            if turn.response is not None:
                await uow.responses.add(lease.tenant, turn.response, turn.input)
            conversation = None
            if before is not None:
                conversation = await self._ready(uow, lease.tenant, before, trim, len(turn.input))
        self._open.add(lease.id)
        return conversation

    async def _ready(
        self, uow: UnitOfWork, tenant: str, before: Conversation, trim: Trim | None, count: int
    ) -> Conversation:
        """With its trim, and room for `count` items and an answer."""
        conversation: Conversation | None = await uow.conversations.get(tenant, before.id)
        assert conversation is not None
        if conversation.version != before.version:
            raise Stale
        if conversation.item_count + count + 1 > self._most_items:
            raise QuotaExceeded(f"A conversation holds {self._most_items} items at most.", param="conversation")
        if trim is not None and trim != before.trim:
            conversation = await uow.conversations.set_trim(tenant, before.id, before.trim, trim)
        if conversation is None:
            raise Stale
        return conversation

    async def store(
        self,
        turn: OpenTurn,
        output: Sequence[Item],
        response: Response | None,
        events: Sequence[ResponseEvent] = (),
    ) -> None:
        """The turn has ended in `response`: it becomes readable with its last `events`, and its conversation has its items.

        Goes on if who waits for it is cancelled. Raises TurnLost, QuotaExceeded, Unavailable.
        """
        with tracing.span("turn.store") as span:
            span.set("hermes2.items", len(turn.input) + len(output))
            await self._end(self._store(turn, output, response, events))

    async def drop(self, turn: OpenTurn, response: Response | None, events: Sequence[ResponseEvent] = ()) -> None:
        """The turn has come to nothing: its conversation is as it was, and its response ended so, or never was (None).

        Goes on if who waits for it is cancelled. Does not raise: what cannot be written now is written later.
        """
        with tracing.span("turn.drop"):
            await self._end(self._drop(turn, response, events))

    async def _end(self, work: Coroutine[Any, Any, None]) -> None:
        """A client that leaves cancels what it waits for, and must not cancel this."""
        await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._enders.add(task)
        task.add_done_callback(self._enders.discard)
        return task

    async def _store(
        self, turn: OpenTurn, output: Sequence[Item], response: Response | None, events: Sequence[ResponseEvent]
    ) -> None:
        self._open.discard(turn.lease.id)
        try:
            conversation = await self._commit(turn, [*turn.input, *output], response, events)
        except TurnLost:
            raise
        except ServiceError:
            if not await self._was_stored(turn, output):
                ended = None if turn.response is None else failed(turn.response, "It was not stored.")
                self._unended.append((turn, ended))
                raise
            return
        if conversation is not None and turn.window is not None:
            added = self._added(conversation, [*turn.input, *output], response)
            await self._hot_state.put_window(turn.lease.tenant, grown(turn.window, conversation, added))

    async def _was_stored(self, turn: OpenTurn, output: Sequence[Item]) -> bool:
        """Whether only the answer to the commit was lost: a client that tries again would have the turn twice."""
        if not output:
            return False
        try:
            async with self._database.reading() as uow:
                return output[-1].id in await uow.items.find(turn.lease.tenant, [output[-1].id])
        except ServiceError:
            return False

    async def _commit(
        self, turn: OpenTurn, items: Sequence[Item], response: Response | None, events: Sequence[ResponseEvent]
    ) -> Conversation | None:
        """The conversation as it is now. Raises TurnLost, Unavailable."""
        tenant, conversation_id = turn.lease.tenant, turn.lease.conversation_id
        async with self._database.writing() as uow:
            kept = await uow.turns.end(turn.lease)
            if kept and response is not None:
                kept = await uow.responses.end(tenant, response)
                if kept:
                    await uow.responses.add_events(tenant, response.id, events)
            elif kept and conversation_id is not None:
                now = int(self._clock())
                await uow.conversations.append(tenant, conversation_id, items, now=now, most=ANY_NUMBER)
            if kept and conversation_id is not None:
                return await uow.conversations.get(tenant, conversation_id)
        if not kept:
            raise TurnLost
        return None

    def _added(self, conversation: Conversation, items: Sequence[Item], response: Response | None) -> list[StoredItem]:
        first = conversation.head - len(items) + 1
        response_id = response.id if response else None
        now = int(self._clock())
        return [
            StoredItem(item=item, seq=first + i, response_id=response_id, created_at=now)
            for i, item in enumerate(items)
        ]

    async def _drop(self, turn: OpenTurn, response: Response | None, events: Sequence[ResponseEvent]) -> None:
        self._open.discard(turn.lease.id)
        await self._give_back(turn, response, events)

    async def _give_back(self, turn: OpenTurn, response: Response | None, events: Sequence[ResponseEvent] = ()) -> None:
        tenant = turn.lease.tenant
        try:
            async with self._database.writing() as uow:
                if not await uow.turns.end(turn.lease):
                    return
                if response is not None and await uow.responses.end(tenant, response):
                    await uow.responses.add_events(tenant, response.id, events)
                elif response is None and turn.response is not None:
                    with contextlib.suppress(NotFound):
                        await uow.responses.delete(tenant, turn.response.id)
        except ServiceError as exc:
            log.error("turn_not_ended", turn=turn.lease.id, error=exc.code)
            self._unended.append((turn, response))

    async def _keep(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._keep_once()
            except ServiceError as exc:
                log.error("leases_not_renewed", error=exc.code)
            except Exception as exc:  # a defect must not end the renewals
                log.error("leases_not_renewed", exc_info=exc)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._lease_s / RENEWALS_PER_LEASE)

    async def _keep_once(self) -> None:
        """Its own turns first: after a pause of this process or of the database they are nobody else's yet."""
        if self._open:
            async with self._database.writing() as uow:
                await uow.turns.renew(self._owner, list(self._open), self._clock() + self._lease_s)
        unended, self._unended = self._unended, []
        for turn, response in unended:
            await self._give_back(turn, response)
        await self.end_orphans()

    async def end_orphans(self) -> int:
        """Ends the turns that nobody runs any more; how many there were."""
        async with self._database.reading() as uow:
            turns = await uow.turns.running()
        dead = {owner for owner in {turn.owner for turn in turns} if is_dead(owner)}
        orphans = [
            turn
            for turn in turns
            if turn.id not in self._open and (turn.lease_until < self._clock() or turn.owner in dead)
        ]
        for turn in orphans:
            await self._end_orphan(turn)
        return len(orphans)

    async def _end_orphan(self, turn: Turn) -> None:
        async with self._database.writing() as uow:
            if not await uow.turns.end_orphan(turn):
                return
            log.warning("orphan_ended", turn=turn.id, owner=turn.owner)
            with contextlib.suppress(NotFound):  # a chat's turn has no response
                response = await uow.responses.get(turn.tenant, turn.id)
                await uow.responses.end(turn.tenant, failed(response, "The process that ran this turn has ended."))


def failed(response: Response, message: str) -> Response:
    error = ResponseError("server_error", message)
    return msgspec.structs.replace(response, status="failed", error=error, completed_at=int(time.time()), output=())


def behind(history: Sequence[StoredItem], trim: Trim) -> list[StoredItem]:
    return [stored for stored in history if stored.seq > trim.upto]


def grown(window: Window, conversation: Conversation, added: Sequence[StoredItem]) -> Window:
    """The window after a turn, without a look at the database."""
    history = behind(window.history, conversation.trim)
    return msgspec.structs.replace(window, conversation=conversation, history=[*history, *added])
