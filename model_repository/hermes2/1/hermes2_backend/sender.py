"""The one thread that touches Triton's response senders: it sends, coalesces, and looks for cancellations.

A send blocks on an acknowledgement from the server, 100 - 150 us, and costs about 250 us of CPU in stub, server and
client together. A sender that merely keeps up never coalesces, so it holds back on purpose: with A streams open each
one may send once per A * send_cost / send_share seconds (never more than max_hold). One open stream is not held at
all in practice (5 ms), sixteen get one response per 80 ms. First deltas, last deltas and errors never wait.
Streams with a mailbox (streams.py) share its responses instead, in which each of them costs its client another 100 us.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import wire
from .errors import BackendError, Internal
from .generation import Delta
from .streams import Mailbox, Stream, Tensors

POLL_SHARE = 0.01
"""Of the time may go into asking whether clients have left: 50 us for each that is asked."""
LONGEST_POLL_INTERVAL_S = 0.5


@dataclass(order=True, slots=True)
class Due:
    at: float
    order: int
    stream: Stream = field(compare=False)
    act: Callable[[], None] = field(compare=False)


class Sender:
    def __init__(
        self,
        *,
        send_cost_s: float,
        letter_cost_s: float,
        send_share: float,
        max_hold_s: float,
        poll_interval_s: float,
        on_cancelled: Callable[[list[Stream]], None],
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_cancelled` gets, on the sender's thread, the streams whose clients have left, each once."""
        self._hold_per_stream_s = send_cost_s / send_share
        self._hold_per_letter_s = letter_cost_s / send_share
        self._max_hold_s = max_hold_s
        self._poll_interval_s = poll_interval_s
        self._on_cancelled = on_cancelled
        self._log = log
        self._clock = clock
        self._changed = threading.Condition()
        self._due: list[Due] = []
        self._order = itertools.count()
        self._open: set[Stream] = set()
        self._mailboxes = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hermes2-sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Sends what is pending, then ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def open(self, stream: Stream) -> None:
        """From now on the stream is polled for cancellation, also while its request is still queued."""
        with self._changed:
            self._open.add(stream)
            if len(self._open) == 1:
                self._changed.notify()

    @property
    def open_streams(self) -> int:
        return len(self._open)

    def post(self, stream: Stream, delta: Delta) -> None:
        """Queues a delta; those that gather before the stream's turn leave as one response."""
        with self._changed:
            gathers = stream.pending is not None
            if stream.pending is not None:
                stream.pending.absorb(delta)
            else:
                stream.pending = delta
            at = self._clock()
            if delta.finished:
                self._schedule(at, stream, lambda: self._send_pending(stream))
            elif stream.mailbox is not None:
                self._put_in(stream.mailbox, stream, at, gathers)
            elif not gathers:
                if stream.last_sent is not None:
                    streams = len(self._open) - self._mailboxes
                    hold = min(self._max_hold_s, self._hold_per_stream_s * streams)
                    at = max(at, stream.last_sent + hold)
                self._schedule(at, stream, lambda: self._send_pending(stream))

    def _put_in(self, mailbox: Mailbox, stream: Stream, now: float, gathers: bool) -> None:
        """The first delta of a stream takes all with it that wait."""
        if not gathers:
            mailbox.waiting.append(stream)
        at = now
        if stream.num_mailed:
            hold = self._hold_per_stream_s + self._hold_per_letter_s * mailbox.users
            at = max(at, mailbox.last_sent + min(self._max_hold_s, hold))
        if at < mailbox.due:
            mailbox.due = at
            self._schedule(at, mailbox.stream, lambda: self._send_mail(mailbox))

    def post_opened(self, mailbox: Mailbox) -> None:
        """Tells the client that the mailbox can be named."""
        with self._changed:
            mailbox.stream.is_mailbox = True
            self._mailboxes += 1
        self._submit(mailbox.stream, lambda: mailbox.stream.responder.send(wire.encode_mail([]), False))

    def post_error(self, stream: Stream, error: BackendError) -> None:
        """Ends the stream with an error, after the deltas that came before it."""

        def act() -> None:
            self._send_pending(stream)
            if stream.structured_errors:
                self._finish(stream, lambda: stream.responder.send(wire.encode_error(error), True))
            else:
                self._finish(stream, lambda: stream.responder.fail(error))

        self._submit(stream, act)

    def post_final(self, stream: Stream, tensors: Tensors) -> None:
        """Ends the stream with one response that is not a delta (the answer to a probe)."""
        self._submit(stream, lambda: self._finish(stream, lambda: stream.responder.send(tensors, True)))

    def post_end(self, stream: Stream) -> None:
        """Ends the stream of a client that has left."""
        self._submit(stream, lambda: self._finish(stream, stream.responder.end))

    def _submit(self, stream: Stream, act: Callable[[], None]) -> None:
        with self._changed:
            self._schedule(self._clock(), stream, act)

    def _schedule(self, at: float, stream: Stream, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, Due(at, next(self._order), stream, act))
        if self._due[0].at == at:
            self._changed.notify()

    def _run(self) -> None:
        next_poll = self._clock()
        while True:
            now = self._clock()
            if now >= next_poll:
                self._poll()
                took = self._clock() - now
                next_poll = now + took + max(self._poll_interval_s, min(took / POLL_SHARE, LONGEST_POLL_INTERVAL_S))
            with self._changed:
                due = self._take_due(now)
                if not due:
                    if self._stopping:
                        return
                    wake = min(self._due[0].at if self._due else next_poll, next_poll)
                    self._changed.wait(max(0.0, wake - now) if self._open or self._due else None)
            for item in due:
                try:
                    item.act()
                except Exception as exc:
                    self._abandon(item.stream, exc)

    def _take_due(self, now: float) -> list[Due]:
        """All that is due in one go: every visit to the lock is a chance for the loop thread to keep the GIL."""
        due = []
        while self._due and (self._due[0].at <= now or self._stopping):
            due.append(heapq.heappop(self._due))
        return due

    def _abandon(self, stream: Stream, exc: Exception) -> None:
        """A response that cannot be sent ends its stream and its generation: the client would wait for ever for the rest."""
        self._log(f"a response could not be sent: {exc!r}")
        self._cancel([stream])
        with contextlib.suppress(Exception):
            self._finish(stream, lambda: stream.responder.fail(Internal("a response could not be sent")))

    def _send_pending(self, stream: Stream) -> None:
        with self._changed:
            delta, stream.pending = stream.pending, None
        if delta is None or stream.closed:
            return
        assert stream.generation is not None
        stream.last_sent = self._clock()
        tensors = wire.encode(delta, stream.generation)
        if stream.mailbox is not None:
            tensors["num_mailed"] = np.asarray([stream.num_mailed], dtype=np.uint32)
        if delta.finished:
            self._finish(stream, lambda: stream.responder.send(tensors, True))
        else:
            stream.responder.send(tensors, False)

    def _send_mail(self, mailbox: Mailbox) -> None:
        letters = []
        with self._changed:
            for stream in mailbox.waiting:
                if stream.pending is not None and not stream.pending.finished and not stream.closed:
                    letters.append((stream.request_id, stream.pending))
                    stream.pending = None
                    stream.num_mailed += 1
            mailbox.waiting.clear()
            mailbox.due = math.inf
            mailbox.last_sent = self._clock()
        if letters and not mailbox.stream.closed:
            mailbox.stream.responder.send(wire.encode_mail(letters), False)

    def _finish(self, stream: Stream, send: Callable[[], None]) -> None:
        if stream.closed:
            return
        stream.closed = True
        with self._changed:
            self._open.discard(stream)
            self._mailboxes -= stream.is_mailbox
        send()

    def _poll(self) -> None:
        with self._changed:
            streams = [stream for stream in self._open if not stream.cancel_seen]
        cancelled = [stream for stream in streams if self._has_left(stream)]
        if cancelled:
            self._cancel(cancelled)

    def _has_left(self, stream: Stream) -> bool:
        try:
            return stream.responder.is_cancelled()
        except Exception as exc:
            self._log(f"a request could not be asked whether it is cancelled: {exc!r}")
            return True

    def _cancel(self, streams: list[Stream]) -> None:
        for stream in streams:
            stream.cancel_seen = True
        self._on_cancelled(streams)
