"""hermes2_backend.sender: order, coalescing and cancellation, with a clock that the test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hermes2_backend.errors import BackendError, Unavailable
from hermes2_backend.generation import Delta, Generation, SequenceDelta
from hermes2_backend.sender import Sender, Stream, Tensors


class FakeResponder:
    """Records what would go to Triton. Fails the test if two threads use it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bool]] = []
        self.cancelled = False
        self.finals = 0
        self.threads: set[int] = set()

    def send(self, tensors: Tensors, final: bool) -> None:
        self.threads.add(threading.get_ident())
        name = "text_output" if "text_output" in tensors else next(iter(tensors))
        self.sent.append((tensors[name][0].decode(), final))
        self.finals += final

    def fail(self, error: BackendError) -> None:
        self.sent.append((f"error: {error}", True))
        self.finals += 1

    def end(self) -> None:
        self.finals += 1

    def is_cancelled(self) -> bool:
        self.threads.add(threading.get_ident())
        return self.cancelled


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cancels() -> list[Stream]:
    """The streams whose clients have left, as the sender tells of them."""
    return []


@pytest.fixture
def sender(clock: Clock, cancels: list[Stream]) -> Iterator[Sender]:
    """One send a stream per 5 ms and open stream, at most 100 ms."""
    log: list[str] = []
    running = Sender(
        send_cost_s=250e-6,
        send_share=0.05,
        max_hold_s=0.1,
        poll_interval_s=0.002,
        on_cancelled=cancels.extend,
        log=log.append,
        clock=clock,
    )
    running.start()
    yield running
    running.stop()
    assert log == []


def open_stream(sender: Sender, structured_errors: bool = False) -> tuple[Stream, FakeResponder]:
    responder = FakeResponder()
    stream = Stream(responder, structured_errors)
    stream.generation = Generation([1], None, {}, True, False, frozenset())
    sender.open(stream)
    return stream, responder


def delta(text: str, finished: bool = False) -> Delta:
    return Delta([SequenceDelta(text, finish_reason="stop" if finished else None)], 1, 0, finished)


class Marker(FakeResponder):
    """Tells when it is ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def end(self) -> None:
        self.ended.set()


def settle(sender: Sender) -> None:
    """Returns when the sender has done all that is due."""
    marker = Marker()
    sender.post_end(Stream(marker, False))
    assert marker.ended.wait(5)


def test_asking_for_departures_takes_a_hundredth_of_the_time(sender: Sender, clock: Clock) -> None:
    """Where asking takes 2 ms it is done every 200 ms, not every 2."""
    asked = 0

    class Slow(FakeResponder):
        def is_cancelled(self) -> bool:
            nonlocal asked
            asked += 1
            clock.now += 0.002
            return False

    def pass_time(seconds: float) -> int:
        clock.now += seconds
        settle(sender)
        return asked

    sender.open(Stream(Slow(), False))
    first = pass_time(0.01)
    assert first == 1
    assert pass_time(0.15) == 1
    assert pass_time(0.1) == 2


def test_the_first_delta_leaves_at_once(sender: Sender) -> None:
    """Time to first token pays nothing for coalescing."""
    stream, responder = open_stream(sender)
    sender.post(stream, delta("a"))
    settle(sender)
    assert responder.sent == [("a", False)]


def test_deltas_gather_while_streams_are_many(sender: Sender, clock: Clock) -> None:
    """With ten streams open, each sends once per 50 ms; what gathers between leaves as one response."""
    streams = [open_stream(sender) for _ in range(10)]
    stream, responder = streams[0]
    for number in range(5):
        sender.post(stream, delta(str(number)))
        settle(sender)
        clock.now += 0.009
    assert responder.sent == [("0", False)]
    clock.now = 0.051
    settle(sender)
    assert responder.sent == [("0", False), ("1234", False)]


def test_the_last_delta_does_not_wait_and_carries_the_final_flag(sender: Sender) -> None:
    """FINAL rides on the last data, together with what was held back."""
    streams = [open_stream(sender) for _ in range(10)]
    stream, responder = streams[0]
    for text, finished in (("a", False), ("b", False), ("c", True)):
        sender.post(stream, delta(text, finished))
    settle(sender)
    assert responder.sent in ([("a", False), ("bc", True)], [("abc", True)], [("ab", False), ("c", True)])
    assert responder.finals == 1
    assert sender.open_streams == 9


@pytest.mark.parametrize("structured", [True, False])
def test_an_error_comes_after_the_deltas_before_it(sender: Sender, structured: bool) -> None:
    """Nothing that was generated is lost to the error that ends the stream; its form is what the client asked for."""
    stream, responder = open_stream(sender, structured)
    sender.post(stream, delta("a"))
    sender.post(stream, delta("b"))
    sender.post_error(stream, Unavailable("gone"))
    settle(sender)
    texts = "".join(text for text, final in responder.sent if not final)
    assert texts == "ab"
    expected = '{"code": "UNAVAILABLE", "message": "gone", "param": null}' if structured else "error: gone"
    assert responder.sent[-1] == (expected, True)
    assert responder.finals == 1


def test_a_cancellation_is_told_once_also_while_nothing_is_sent(
    sender: Sender, clock: Clock, cancels: list[Stream]
) -> None:
    """A queued request, which sends nothing, is polled like a running one."""
    stream, responder = open_stream(sender)
    responder.cancelled = True
    deadline = time.monotonic() + 5
    while not cancels and time.monotonic() < deadline:
        clock.now += 0.01
        settle(sender)
    clock.now += 1
    settle(sender)
    assert cancels == [stream]
    sender.post_end(stream)
    settle(sender)
    assert (responder.sent, responder.finals) == ([], 1)


def test_a_stream_ends_once(sender: Sender) -> None:
    """Whatever comes after the end, deltas, errors, another end, is dropped."""
    stream, responder = open_stream(sender)
    sender.post(stream, delta("a", finished=True))
    settle(sender)
    sender.post(stream, delta("late"))
    sender.post_error(stream, Unavailable("late"))
    sender.post_end(stream)
    settle(sender)
    assert (responder.sent, responder.finals) == ([("a", True)], 1)
    assert len(responder.threads) <= 1


def test_stopping_sends_what_is_held_back(clock: Clock) -> None:
    """A drain loses no text."""
    sender = Sender(
        send_cost_s=250e-6,
        send_share=0.05,
        max_hold_s=10,
        poll_interval_s=1,
        on_cancelled=lambda _: None,
        log=lambda _: None,
        clock=clock,
    )
    sender.start()
    streams = [open_stream(sender) for _ in range(10)]
    stream, responder = streams[0]
    sender.post(stream, delta("a"))
    settle(sender)
    sender.post(stream, delta("b"))
    sender.stop()
    assert responder.sent == [("a", False), ("b", False)]


def test_a_response_that_cannot_be_sent_ends_its_stream(clock: Clock, cancels: list[Stream]) -> None:
    """Told in the log; the generation is cancelled, the client gets an error, and other streams go on."""
    log: list[str] = []
    sender = Sender(
        send_cost_s=250e-6,
        send_share=0.05,
        max_hold_s=0.1,
        poll_interval_s=1,
        on_cancelled=cancels.extend,
        log=log.append,
        clock=clock,
    )
    sender.start()
    broken, responder = open_stream(sender)
    healthy, other = open_stream(sender)
    responder.send = lambda *_: (_ for _ in ()).throw(RuntimeError("no memory"))  # type: ignore[method-assign]
    sender.post(broken, delta("a"))
    sender.post(healthy, delta("b"))
    settle(sender)
    assert cancels == [broken]
    assert [final for _, final in responder.sent] == [True]
    assert other.sent == [("b", False)]
    assert "no memory" in log[0]
    sender.stop()
