"""hermes2_backend.sender: order, coalescing and cancellation, with a clock that the test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
from hermes2_backend.errors import BackendError, Unavailable
from hermes2_backend.generation import Delta, Generation, SequenceDelta
from hermes2_backend.sender import Sender
from hermes2_backend.streams import Mailbox, Stream, Tensors


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


def make_sender(
    clock: Clock, cancels: list[Stream], log: list[str], *, max_hold_s: float = 0.1, poll_interval_s: float = 1
) -> Sender:
    """One send a stream per 5 ms and open stream, a mailbox's per 5 ms and another 2 for each stream."""
    return Sender(
        send_cost_s=250e-6,
        letter_cost_s=100e-6,
        send_share=0.05,
        max_hold_s=max_hold_s,
        poll_interval_s=poll_interval_s,
        on_cancelled=cancels.extend,
        log=log.append,
        clock=clock,
    )


@pytest.fixture
def sender_log() -> list[str]:
    return []


@pytest.fixture
def sender(clock: Clock, cancels: list[Stream], sender_log: list[str]) -> Iterator[Sender]:
    running = make_sender(clock, cancels, sender_log, poll_interval_s=0.002)
    running.start()
    yield running
    running.stop()
    assert sender_log == []


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
    sender = make_sender(clock, [], [], max_hold_s=10)
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
    sender = make_sender(clock, cancels, log)
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


class MailResponder(FakeResponder):
    """Of a mailbox: records letters as (request id, text), a list for each response."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[list[tuple[str, str]]] = []
        self.fails = False

    def send(self, tensors: Tensors, final: bool) -> None:
        if self.fails:
            raise RuntimeError("no memory")
        letters = msgspec.msgpack.decode(tensors["mail"][0])
        self.mails.append(
            [(request_id, "".join(text for _, text, _, _ in gained)) for request_id, _, gained in letters]
        )


class NumberedResponder(FakeResponder):
    """Records how many letters each response says that there were before it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_mailed: list[int] = []

    def send(self, tensors: Tensors, final: bool) -> None:
        super().send(tensors, final)
        self.num_mailed.append(int(tensors["num_mailed"][0]))


@pytest.fixture
def mailbox(sender: Sender) -> Mailbox:
    stream = Stream(MailResponder(), True)
    sender.open(stream)
    return Mailbox(stream, users=2)


def open_in(sender: Sender, mailbox: Mailbox, request_id: str) -> tuple[Stream, NumberedResponder]:
    responder = NumberedResponder()
    stream = Stream(responder, True, request_id, Generation([1], None, {}, True, False, frozenset()), mailbox)
    sender.open(stream)
    return stream, responder


def mails(mailbox: Mailbox) -> list[list[tuple[str, str]]]:
    assert isinstance(mailbox.stream.responder, MailResponder)
    return mailbox.stream.responder.mails


def test_streams_of_a_mailbox_share_its_responses(sender: Sender, clock: Clock, mailbox: Mailbox) -> None:
    """What two streams gained while the mailbox held back leaves in one response; a stream's own has its end only."""
    (one, own), (two, other) = open_in(sender, mailbox, "one"), open_in(sender, mailbox, "two")
    sender.post(one, delta("a"))
    settle(sender)
    sender.post(two, delta("A"))
    settle(sender)
    for text in ("b", "c"):
        sender.post(one, delta(text))
        sender.post(two, delta(text.upper()))
        settle(sender)
    assert mails(mailbox) == [[("one", "a")], [("two", "A")]]
    clock.now = 0.05
    settle(sender)
    assert mails(mailbox)[2:] == [[("one", "bc"), ("two", "BC")]]
    assert own.sent == other.sent == []


def test_the_first_delta_of_a_stream_takes_along_what_waits(sender: Sender, mailbox: Mailbox) -> None:
    """It never waits itself."""
    (one, _), (two, _) = open_in(sender, mailbox, "one"), open_in(sender, mailbox, "two")
    for text in ("a", "b"):
        sender.post(one, delta(text))
        settle(sender)
    sender.post(two, delta("A"))
    settle(sender)
    assert mails(mailbox) == [[("one", "a")], [("one", "b"), ("two", "A")]]


def test_what_ends_a_stream_says_how_many_letters_went_before(sender: Sender, mailbox: Mailbox) -> None:
    """With what waited; nothing of it comes by mail as well."""
    stream, own = open_in(sender, mailbox, "one")
    sender.post(stream, delta("a"))
    settle(sender)
    sender.post(stream, delta("b"))
    sender.post(stream, delta("c", finished=True))
    settle(sender)
    assert mails(mailbox) == [[("one", "a")]]
    assert (own.sent, own.num_mailed) == ([("bc", True)], [1])


def test_an_open_mailbox_holds_nobody_back(sender: Sender, clock: Clock, mailbox: Mailbox) -> None:
    """A stream that does not name it is alone, and sends every 5 ms; afterwards neither less nor more often."""
    sender.post_opened(mailbox)
    stream, responder = open_stream(sender)
    for text in "abc":
        sender.post(stream, delta(text))
        settle(sender)
        clock.now += 0.006
    assert [text for text, _ in responder.sent] == ["a", "b", "c"]
    sender.post_end(mailbox.stream)
    for text in "de":
        sender.post(stream, delta(text))
        settle(sender)
        clock.now += 0.003
    assert [text for text, _ in responder.sent] == ["a", "b", "c", "d"]


def test_an_end_is_not_taken_by_the_mail_before_it(sender: Sender, clock: Clock, mailbox: Mailbox) -> None:
    """A mail that is due when the end comes leaves first, and without it."""
    stream, own = open_in(sender, mailbox, "one")
    sender.post(stream, delta("a"))
    settle(sender)
    sender.post(stream, delta("b"))
    clock.now = 0.05
    sender.post(stream, delta("c", finished=True))
    settle(sender)
    assert "".join(text for each in mails(mailbox) for _, text in each) + own.sent[-1][0] == "abc"
    assert (own.finals, own.num_mailed) == (1, [len(mails(mailbox))])


def test_a_mailbox_that_cannot_be_sent_to_is_closed(sender_log: list[str], clock: Clock, cancels: list[Stream]) -> None:
    """Its request is cancelled and told; streams that name it come to their ends, which say what is missing."""
    sender = make_sender(clock, cancels, sender_log)
    sender.start()
    mailbox = Mailbox(Stream(MailResponder(), True), users=1)
    sender.open(mailbox.stream)
    assert isinstance(mailbox.stream.responder, MailResponder)
    mailbox.stream.responder.fails = True
    stream, own = open_in(sender, mailbox, "one")
    sender.post(stream, delta("a"))
    settle(sender)
    sender.post(stream, delta("b"))
    sender.post(stream, delta("c", finished=True))
    settle(sender)
    sender.stop()
    assert cancels == [mailbox.stream]
    assert mailbox.stream.responder.finals == 1
    assert (own.sent, own.num_mailed) == ([("bc", True)], [1])
    assert "no memory" in sender_log[0]
