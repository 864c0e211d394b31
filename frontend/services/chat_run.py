"""One turn of a conversation being made: from the first token to the transaction that keeps it, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing

import msgspec
import structlog

from frontend.domain.errors import Internal, ServiceError
from frontend.domain.generation import FinishReason, GenerationDelta
from frontend.domain.items import FunctionCallItem, Item, ItemStatus
from frontend.domain.responses import ResponseEvent
from frontend.services.generate import Reply
from frontend.services.limits.gate import Entry
from frontend.services.models import Model
from frontend.services.responses.narrator import Narrator
from frontend.services.turns import OpenTurn, TurnKeeper, TurnLost

log = structlog.get_logger("hermes2.chat")


class Begun(msgspec.Struct, frozen=True):
    """A turn that holds its conversation."""

    turn: OpenTurn
    reply: Reply
    narrator: Narrator
    when_stored: Callable[[int], None]
    """Is told the answer's length in tokens."""


class ConversationReply:
    """What a Reply is outside of conversations. The turn begins when `deltas` is first read: who never does leaves nothing
    behind. It may have to be prepared anew then, so that `prompt_tokens` is not certain before the first delta."""

    n = 1

    def __init__(
        self,
        prepared: Reply,
        enter: Callable[[], AbstractAsyncContextManager[Entry]],
        begin: Callable[[], Awaitable[Begun]],
        keeper: TurnKeeper,
    ) -> None:
        """`enter` and `begin` raise what the first delta is to raise: who is not let in has begun nothing."""
        self.model: Model = prepared.model
        self.prompt_tokens = prepared.prompt_tokens
        self.degraded = prepared.degraded
        self.deltas = self._run()
        self._enter = enter
        self._begin = begin
        self._keeper = keeper
        self._narrator = Narrator()
        self._completion_tokens = 0

    async def _run(self) -> AsyncGenerator[GenerationDelta, None]:
        """The last delta is given when the turn is stored.

        Closing it, or cancelling who reads it, stores what there is as incomplete, and before the first token nothing.
        """
        async with self._enter() as entry, aclosing(self._turn(await self._begin(), entry)) as deltas:
            async for delta in deltas:
                yield delta

    async def _turn(self, begun: Begun, entry: Entry) -> AsyncGenerator[GenerationDelta, None]:
        open_turn: OpenTurn | None = begun.turn
        self.prompt_tokens, self.degraded = begun.reply.prompt_tokens, begun.reply.degraded
        self._narrator = begun.narrator
        heard = False
        try:
            async with aclosing(entry.follow(begun.reply)) as deltas:
                async for delta in deltas:
                    if not heard:
                        exhaust(self._narrator.search())
                    heard = True
                    finish = self._hear(delta)
                    if finish is not None and open_turn is not None:
                        ended, open_turn = open_turn, None
                        await self._keeper.store(ended, self._output(finish), None)
                        begun.when_stored(self._completion_tokens)
                    yield delta
            if open_turn is not None:
                raise Internal("The engine ended a choice without a reason.")
        except Exception:
            if open_turn is not None:
                await self._keeper.drop(open_turn, None)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if open_turn is not None:
                await self._leave(open_turn, heard)
            raise

    def _hear(self, delta: GenerationDelta) -> FinishReason | None:
        finish = None
        for choice in delta.choices:
            finish = choice.finish_reason
            self._completion_tokens += choice.num_tokens
            exhaust(self._narrator.feed(choice))
        return finish

    async def _leave(self, turn: OpenTurn, heard: bool) -> None:
        """Nobody reads any more."""
        if not heard:
            await self._keeper.drop(turn, None)
            return
        try:
            await self._keeper.store(turn, self._output(None), None)
        except TurnLost:  # somebody has deleted the conversation
            log.info("cut_turn_gone", turn=turn.lease.id)
        except ServiceError as exc:
            log.error("cut_turn_not_stored", turn=turn.lease.id, error=exc.code)

    def _output(self, finish: FinishReason | None) -> list[Item]:
        """What was said, to the end (`finish`) or as far as somebody listened (None).

        A text that max_tokens has cut is complete: its client has got all of it, and may ask to go on. A call is not one to
        make unless the model has ended its turn with it: only then must a result follow.
        """
        exhaust(self._narrator.close("incomplete" if finish is None else "completed"))
        calls: ItemStatus = "completed" if finish == "tool_calls" else "incomplete"
        return [
            msgspec.structs.replace(item, status=calls) if isinstance(item, FunctionCallItem) else item
            for item in self._narrator.output
        ]


def exhaust(events: Iterator[ResponseEvent]) -> None:
    """Only the items that they lead to are of use here."""
    for _ in events:
        pass
