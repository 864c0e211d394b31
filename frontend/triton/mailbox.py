"""The mailbox of this process: one response of Triton's brings what many streams gained (hermes2_backend/streams.py).

Opened while several streams run; the model closes it when nobody has named it for a while. What ends a stream comes by the
stream's own call, and says how many letters left before it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager

import structlog

from frontend.domain import ids
from frontend.domain.errors import Unavailable
from frontend.domain.generation import GenerationDelta, GenerationRequest
from frontend.triton import wire

STREAMS = 4
"""So many at once are worth one."""
MOST_LETTERS = 256
"""Of one mailbox, then the next is opened: Triton (24.10) keeps each response of a call until the call ends."""
PAUSE_S = 1.0
"""After one that was lost, or could not be opened."""
PATIENCE_S = 5.0
"""With letters that left before an end that is here."""

log = structlog.get_logger("hermes2.mailbox")

Responses = AsyncGenerator[Mapping[str, bytes], None]


class Inbox:
    """What comes for one generation, in its order."""

    def __init__(self, request: GenerationRequest, mailbox: str) -> None:
        """`mailbox`: the name of the one that its letters come by."""
        self.mailbox = mailbox
        self._request = request
        self._letters: deque[GenerationDelta] = deque()
        self._own: deque[tuple[int, GenerationDelta]] = deque()
        """By its own call; each with the number of letters that left before it."""
        self._failure: Exception | None = None
        self._is_over = False
        """The call has ended."""
        self._changed = asyncio.Event()
        self.has_mail = False
        """Whether any letter has come, ever."""

    def put(self, letter: GenerationDelta) -> None:
        self.has_mail = True
        self._letters.append(letter)
        self._changed.set()

    def fail(self, error: Exception) -> None:
        self._failure = error
        self._changed.set()

    async def fill(self, responses: Responses) -> None:
        """From the generation's own call."""
        try:
            async with aclosing(responses):
                async for raw in responses:
                    self._own.append((wire.parse_num_mailed(raw), wire.parse_delta(raw, self._request)))
                    self._changed.set()
            self._is_over = True
            self._changed.set()
        except Exception as exc:  # raised where the deltas are read
            self.fail(exc)

    async def deltas(self) -> AsyncGenerator[GenerationDelta, None]:
        """Raises what the call does, and Unavailable if letters are lost."""
        read = 0
        while True:
            self._changed.clear()
            while self._letters or (self._own and self._own[0][0] <= read):
                if self._letters:
                    read += 1
                    yield self._letters.popleft()
                else:
                    yield self._own.popleft()[1]
            if self._is_over and not self._own:
                return
            if self._failure is not None:
                raise self._failure
            try:
                await asyncio.wait_for(self._changed.wait(), PATIENCE_S if self._is_over else None)
            except TimeoutError as exc:
                raise Unavailable("A part of the answer was lost.") from exc


class Mailbox:
    """One after the other: the next is open before those that are new stop naming the last."""

    def __init__(self, infer: Callable[[object], Responses]) -> None:
        """`infer`: the responses to one ModelInferRequest, for as long as there are any."""
        self._infer = infer
        self._inboxes: dict[str, Inbox] = {}
        self._streams = 0
        self._readers: set[asyncio.Task[None]] = set()
        self._newest: str | None = None
        """Open, or about to be."""
        self._name: str | None = None
        """The one that generations name."""
        self._not_before = 0.0

    @contextmanager
    def stream(self) -> Iterator[str | None]:
        """Around each generation that could use one; gives the name of the one that is open, if several run."""
        self._streams += 1
        if self._streams >= STREAMS and self._newest is None and time.monotonic() >= self._not_before:
            self._open()
        try:
            yield self._name if self._streams >= STREAMS else None
        finally:
            self._streams -= 1

    async def deltas(
        self, request_id: str, inbox: Inbox, responses: Responses
    ) -> AsyncGenerator[GenerationDelta, None]:
        """What one generation gains. `responses`: to its own call, which names the inbox's mailbox."""
        self._inboxes[request_id] = inbox
        call = asyncio.create_task(inbox.fill(responses))
        try:
            async with aclosing(inbox.deltas()) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            del self._inboxes[request_id]
            call.cancel()
            await asyncio.wait([call])

    def _open(self) -> None:
        self._newest = ids.new("mail-")
        reader = asyncio.create_task(self._read(self._newest))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    async def _read(self, name: str) -> None:
        num_letters = 0
        try:
            async with aclosing(self._infer(wire.mailbox_request(name))) as responses:
                async for raw in responses:
                    num_letters += 1
                    if name == self._newest:
                        self._name = name
                        if num_letters > MOST_LETTERS:
                            self._open()
                    for request_id, delta in wire.parse_mail(raw):
                        if inbox := self._inboxes.get(request_id):
                            inbox.put(delta)
        except Exception as exc:
            log.warning("mailbox_lost", error=getattr(exc, "code", type(exc).__name__))
            self._not_before = time.monotonic() + PAUSE_S
            for inbox in self._inboxes.values():
                if inbox.mailbox == name and inbox.has_mail:  # the others' own calls begin anew, or tell what is lost
                    inbox.fail(exc)
        finally:
            if self._newest == name:
                self._newest = None
            if self._name == name:
                self._name = None
