"""One response being made: from the first token to the transaction that stores it, whatever happens on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
import structlog

from frontend.domain.errors import Internal, InvalidRequest, ServiceError
from frontend.domain.generation import FinishReason, Usage
from frontend.domain.items import FunctionCallItem
from frontend.domain.responses import (
    ErrorCode,
    IncompleteReason,
    Response,
    ResponseError,
    ResponseEvent,
    ResponseStatus,
)
from frontend.services.generate import Reply
from frontend.services.responses.narrator import Narrator
from frontend.services.turns import OpenTurn, TurnKeeper, TurnLost

log = structlog.get_logger("hermes2.responses")


class ResponseRun:
    def __init__(
        self,
        response: Response,
        reply: Reply,
        turn: OpenTurn | None,
        keeper: TurnKeeper,
        *,
        streams: bool,
        narrator: Narrator,
        when_stored: Callable[[int], None],
    ) -> None:
        """`response`: as it was accepted. `turn`: None if nothing of it is kept.

        `streams`: somebody reads its events: they are kept, and a failure after the first token is one of them, not an
        exception. In the background every failure is. `when_stored` is told the answer's length in tokens.
        """
        self.response = response
        self._reply = reply
        self._turn = turn
        self._keeper = keeper
        self._when_stored = when_stored
        self._resumable = streams or response.background
        self._narrator = narrator
        self._unstored: list[ResponseEvent] = []
        self._completion_tokens = 0
        self._cached_tokens = 0

    async def events(self) -> AsyncGenerator[ResponseEvent, None]:
        """The last event is told when what it says has been stored.

        Closing it, or cancelling who reads it, stores what there is as `incomplete`, and nothing, as `cancelled`, before the
        first token. Raises what the engine raises, unless that is told.
        """
        async with aclosing(self._run()) as events:
            async for event in events:
                self._unstored.append(event)
                yield event

    def take_events(self) -> list[ResponseEvent]:
        """Those that nobody has stored yet; what is left is stored when the response ends."""
        taken, self._unstored = self._unstored, []
        return taken

    def put_back(self, events: list[ResponseEvent]) -> None:
        """They could not be stored."""
        self._unstored = events + self._unstored

    async def _run(self) -> AsyncGenerator[ResponseEvent, None]:
        finish: FinishReason | None = None
        begun = False
        try:
            async with aclosing(self._reply.deltas) as deltas:
                async for delta in deltas:
                    if not begun:
                        begun = True
                        for event in (*self._narrator.begin(self.response), *self._narrator.search()):
                            yield event
                    for choice in delta.choices:
                        self._completion_tokens += choice.num_tokens
                        self._cached_tokens = max(self._cached_tokens, delta.num_cached_tokens)
                        finish = choice.finish_reason or finish
                        for event in self._narrator.feed(choice):
                            yield event
            cut = finish == "length"
            for event in self._narrator.close("incomplete" if cut else "completed"):
                yield event
            ended = self._ended("incomplete" if cut else "completed", reason="max_output_tokens" if cut else None)
            await self._store(ended)
        except Exception as unexpected:
            exc = told(unexpected, self.response.id)
            if not (self.response.background or (begun and self._resumable)):
                await self._drop(None)
                raise exc from unexpected
            if not begun:
                for event in self._narrator.begin(self.response):
                    yield event
            code: ErrorCode = "invalid_prompt" if isinstance(exc, InvalidRequest) else "server_error"
            ended = self._ended("failed", error=ResponseError(code, exc.message))
            await self._drop(ended)
        except (asyncio.CancelledError, GeneratorExit):
            await self._leave(begun)
            raise
        yield self._narrator.end(ended)

    async def _leave(self, begun: bool) -> None:
        """Nobody reads any more."""
        if not begun:
            await self._drop(self._ended("cancelled"))
            return
        self._unstored.extend(self._narrator.close("incomplete"))  # whoever reads it again sees how it ends
        ended = self._ended("incomplete")
        calls_unseen = [
            msgspec.structs.replace(item, status="incomplete") if isinstance(item, FunctionCallItem) else item
            for item in ended.output
        ]  # nobody is left to make them: the next turn need not bring their results
        try:
            await self._store(msgspec.structs.replace(ended, output=calls_unseen))
        except TurnLost:  # somebody has cancelled or deleted it
            log.info("cut_response_gone", response=self.response.id)
        except ServiceError as exc:
            log.error("cut_response_not_stored", response=self.response.id, error=exc.code)

    def _ended(
        self,
        status: ResponseStatus,
        *,
        reason: IncompleteReason | None = None,
        error: ResponseError | None = None,
    ) -> Response:
        kept = status in ("completed", "incomplete")
        return msgspec.structs.replace(
            self.response,
            status=status,
            incomplete_reason=reason,
            error=error,
            completed_at=int(time.time()),
            usage=Usage(self._reply.prompt_tokens, self._completion_tokens, self._cached_tokens) if kept else None,
            output=self._narrator.output if kept else (),
        )

    async def _store(self, ended: Response) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            response = ended if turn.response is not None else None
            await self._keeper.store(turn, ended.output, response, self._kept_events())
            self._when_stored(self._completion_tokens)

    async def _drop(self, ended: Response | None) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            await self._keeper.drop(turn, ended if turn.response is not None else None, self._kept_events())

    def _kept_events(self) -> list[ResponseEvent]:
        return self.take_events() if self._resumable else []


def told(error: Exception, response_id: str) -> ServiceError:
    """A defect ends a response too: whatever happens, its lease is given back."""
    if isinstance(error, ServiceError):
        return error
    log.error("response_broken", response=response_id, exc_info=error)
    return Internal("The service failed unexpectedly.")
