"""hermes2_backend.backend: the life of a request around a scripted engine, every way it can end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
from hermes2_backend.backend import Backend
from hermes2_backend.config import BackendConfig
from hermes2_backend.errors import BackendError
from hermes2_backend.streams import Tensors
from numpy.typing import NDArray


class RecordingResponder:
    """What would go to Triton, and an event for its end."""

    def __init__(self, cancelled: bool = False) -> None:
        self.tensors: list[Tensors] = []
        self.errors: list[BackendError] = []
        self.cancelled = cancelled
        self.finals = 0
        self.over = threading.Event()

    def send(self, tensors: Tensors, final: bool) -> None:
        self.tensors.append(tensors)
        if final:
            self._final()

    def fail(self, error: BackendError) -> None:
        self.errors.append(error)
        self._final()

    def end(self) -> None:
        self._final()

    def _final(self) -> None:
        self.finals += 1
        self.over.set()

    def is_cancelled(self) -> bool:
        return self.cancelled

    @property
    def text(self) -> str:
        return "".join(t["text_output"][0].decode() for t in self.tensors if "text_output" in t)


@pytest.fixture
def backend() -> Iterator[Backend]:
    running = Backend(
        BackendConfig(engine="scripted", scripted_token_interval_ms=1, poll_interval_ms=2, drain_timeout_s=0.3), print
    )
    running.start()
    yield running
    running.stop()


def inputs(sampling: str = '{"max_tokens": 5}', **more: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    return {
        "text_input": np.asarray([b"Where?"], np.object_),
        "stream": np.asarray([True]),
        "sampling_parameters": np.asarray([sampling.encode()], np.object_),
        **more,
    }


def ask(backend: Backend, what: str) -> str:
    responder = RecordingResponder()
    backend.submit(responder, {"probe": np.asarray([what.encode()], np.object_)}, "")
    assert responder.over.wait(5)
    return str(responder.tensors[0]["probe_output"][0].decode())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_request_ends_with_one_final_response(backend: Backend) -> None:
    """Deltas in order, FINAL on the last of them."""
    responder = RecordingResponder()
    backend.submit(responder, inputs(), "")
    assert responder.over.wait(5)
    assert responder.text == "Paris is the capital of"
    assert responder.finals == 1


def test_a_bad_request_is_answered_with_tritons_error(backend: Backend) -> None:
    """Without return_error: INVALID_ARG as Triton's own error, naming the parameter."""
    responder = RecordingResponder()
    backend.submit(responder, inputs('{"temperature": "warm"}'), "")
    assert responder.over.wait(5)
    assert [(error.code, error.param) for error in responder.errors] == [("INVALID_ARG", "temperature")]


def test_a_bad_request_is_answered_in_the_payload_if_asked_for(backend: Backend) -> None:
    """With return_error: the same as JSON in the output `error`."""
    responder = RecordingResponder()
    backend.submit(responder, inputs('{"nonsense": 1}', return_error=np.asarray([True])), "")
    assert responder.over.wait(5)
    (tensors,) = responder.tensors
    assert json.loads(tensors["error"][0])["param"] == "nonsense"


def test_a_client_that_leaves_ends_its_generation(backend: Backend) -> None:
    """Seen by polling; the engine's work stops, and Triton gets its final flag."""
    responder = RecordingResponder()
    backend.submit(responder, inputs('{"max_tokens": 100000}'), "")
    until(lambda: bool(responder.tensors))
    responder.cancelled = True
    assert responder.over.wait(5)
    until(lambda: json.loads(ask(backend, "health"))["requests"] == 0)
    assert responder.finals == 1


def test_clients_that_leave_at_once_are_ended_too(backend: Backend) -> None:
    """Cancelled before the request's task has taken its first step: Triton still gets its final flag, once.

    A task that is cancelled so early runs no line of its own; its request once stayed open for ever, and kept Triton
    from unloading the model.
    """
    responders = [RecordingResponder(cancelled=True) for _ in range(300)]
    for responder in responders:
        backend.submit(responder, inputs('{"max_tokens": 100000}'), "")
    for responder in responders:
        assert responder.over.wait(5)
    assert {responder.finals for responder in responders} == {1}
    until(lambda: json.loads(ask(backend, "health"))["requests"] == 0)


def test_stopping_ends_what_still_runs_with_an_error() -> None:
    """After drain_timeout_s, running requests end with UNAVAILABLE, which clients may retry."""
    backend = Backend(BackendConfig(engine="scripted", scripted_token_interval_ms=1, drain_timeout_s=0.05), print)
    backend.start()
    responder = RecordingResponder()
    backend.submit(responder, inputs('{"max_tokens": 100000}'), "")
    until(lambda: bool(responder.tensors))
    backend.stop()
    assert [error.code for error in responder.errors] == ["UNAVAILABLE"]
    assert responder.finals == 1


def test_stopping_lets_short_requests_finish() -> None:
    """What ends within the drain time ends whole."""
    backend = Backend(BackendConfig(engine="scripted", scripted_token_interval_ms=1, drain_timeout_s=5), print)
    backend.start()
    responder = RecordingResponder()
    backend.submit(responder, inputs('{"max_tokens": 50}'), "")
    until(lambda: bool(responder.tensors))
    backend.stop()
    assert responder.errors == []
    assert responder.finals == 1


def test_metrics_and_health_are_asked_for_like_anything_else(backend: Backend) -> None:
    """Probes go the way of requests, so they prove that way."""
    assert json.loads(ask(backend, "health")) == {"status": "ok", "requests": 0}
    assert "hermes2_engine_requests 0" in ask(backend, "metrics")


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes2_backend.backend.LINGER_S", 0.05)


def open_mailbox(backend: Backend, name: str = "mine") -> RecordingResponder:
    responder = RecordingResponder()
    backend.submit(responder, {"mailbox": np.asarray([name.encode()], np.object_)}, "", name)
    until(lambda: bool(responder.tensors or responder.errors))
    return responder


def letters(mailbox: RecordingResponder) -> list[tuple[str, str]]:
    """Request ids with what they gained."""
    mails = [msgspec.msgpack.decode(tensors["mail"][0]) for tensors in mailbox.tensors]
    return [(request_id, gained[0][1]) for mail in mails for request_id, _, gained in mail]


NAME = np.asarray([b"mine"], np.object_)


def test_a_mailbox_brings_all_but_the_end(backend: Backend) -> None:
    """Its first response, which is empty, says that it is open."""
    mailbox, responder = open_mailbox(backend), RecordingResponder()
    assert letters(mailbox) == []
    backend.submit(responder, inputs(mailbox=NAME), "", "one")
    assert responder.over.wait(5)
    assert {request_id for request_id, _ in letters(mailbox)} == {"one"}
    assert "".join(text for _, text in letters(mailbox)) + responder.text == "Paris is the capital of"
    assert [int(tensors["num_mailed"][0]) for tensors in responder.tensors] == [len(letters(mailbox))]
    assert mailbox.finals == 0


@pytest.mark.usefixtures("short_linger")
def test_a_mailbox_that_nobody_names_is_closed(backend: Backend) -> None:
    """Not while a generation does; one that names it afterwards gets everything by its own way."""
    mailbox, responder = open_mailbox(backend), RecordingResponder()
    backend.submit(responder, inputs('{"max_tokens": 300}', mailbox=NAME), "", "one")
    assert responder.over.wait(5)
    assert mailbox.finals == 0
    assert mailbox.over.wait(5)
    late = RecordingResponder()
    backend.submit(late, inputs(mailbox=NAME), "", "two")
    assert late.over.wait(5)
    assert late.text == "Paris is the capital of"
    assert mailbox.finals == 1


def test_a_mailbox_of_a_client_that_left_is_closed(backend: Backend) -> None:
    mailbox = open_mailbox(backend)
    mailbox.cancelled = True
    assert mailbox.over.wait(5)
    assert open_mailbox(backend).errors == []


def test_a_mailbox_is_nobody_elses(backend: Backend) -> None:
    """A second one of the same name is refused, and the first one goes on."""
    mailbox = open_mailbox(backend)
    assert [error.code for error in open_mailbox(backend).errors] == ["INVALID_ARG"]
    assert mailbox.finals == 0


@pytest.mark.parametrize(("name", "request_id"), [("", "one"), ("mine", "")])
def test_a_mailbox_has_a_name_and_its_letters_have_an_id(backend: Backend, name: str, request_id: str) -> None:
    """An empty name would be that of all requests that name none; a letter without an id would find nobody."""
    opening, naming = RecordingResponder(), RecordingResponder()
    named = np.asarray([name.encode()], np.object_)
    backend.submit(opening, {"mailbox": named}, "", request_id)
    backend.submit(naming, inputs(mailbox=named), "", request_id)
    for responder in (opening, naming):
        assert responder.over.wait(5)
        assert [(error.code, error.param) for error in responder.errors] == [("INVALID_ARG", "mailbox")]


def test_letters_do_not_carry_log_probabilities(backend: Backend) -> None:
    responder = RecordingResponder()
    backend.submit(responder, inputs(return_logprobs=np.asarray([True]), mailbox=NAME), "", "one")
    assert responder.over.wait(5)
    assert [(error.code, error.param) for error in responder.errors] == [("INVALID_ARG", "mailbox")]


def test_stopping_does_not_wait_for_a_mailbox() -> None:
    """But for the generations that name it."""
    backend = Backend(BackendConfig(engine="scripted", scripted_token_interval_ms=1, drain_timeout_s=20), print)
    backend.start()
    mailbox, responder = open_mailbox(backend), RecordingResponder()
    backend.submit(responder, inputs('{"max_tokens": 50}', mailbox=NAME), "", "one")
    until(lambda: bool(letters(mailbox)))
    started = time.monotonic()
    backend.stop()
    assert time.monotonic() - started < 1
    assert (responder.errors, responder.finals, mailbox.finals) == ([], 1, 1)
