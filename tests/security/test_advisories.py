"""What others were broken with, against the real service: refused at once, by name, and nobody else notices."""

from __future__ import annotations

import json
import re
import socket
import statistics
import threading
import time

import httpx
import msgspec
import pytest

from tests.security.advisories import CASES, CHAT, Case
from tests.support.stack import API_KEY, Stack

pytestmark = pytest.mark.real

WITHIN_S = 0.1
TRIES = 3
CLOSED = 0
STREAM_TOKENS = 300
LONGEST_PAUSE_S = 1.0
"""Between two pieces of a stream beside them; 0.12 s as measured on two quiet cores, where tests run beside it 0.4."""
ALONE = httpx.Limits(max_keepalive_connections=0)
"""A connection for each request: the service closes those that it has refused to read to the end."""
AUTHORIZATION = {"authorization": f"Bearer {API_KEY}", "content-type": "application/json"}


class Answer(msgspec.Struct, frozen=True):
    status: int
    param: str | None
    code: str | None
    after_s: float


class Beside:
    """Streams one answer after the other, as another client."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.whole = 0
        self.broken: list[str] = []
        self.longest_pause_s = 0.0

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        body = {"model": "hermes-2", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        body |= {"max_tokens": STREAM_TOKENS}
        with httpx.Client(base_url=self._url, headers=AUTHORIZATION, timeout=30) as http:
            while not self._ended.is_set():
                with http.stream("POST", CHAT, json=body) as response:
                    pieces, last = [], time.perf_counter()
                    for piece in response.iter_text():
                        now = time.perf_counter()
                        self.longest_pause_s, last = max(self.longest_pause_s, now - last), now
                        pieces.append(piece)
                text = "".join(pieces)
                if text.endswith("data: [DONE]\n\n") and '"finish_reason":"length"' in text:
                    self.whole += 1
                else:
                    self.broken.append(text[-500:])


def test_each_is_answered_at_once_and_nobody_notices(scripted_stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Each payload three times: the status of the table within 100 ms in the median, the parameter by its name, no process
    lost, and the streams beside them whole."""
    before = [(process.pid, process.create_time()) for process in scripted_stack.family()]
    wrong: list[str] = []
    slowest = 0.0
    with (
        Beside(scripted_stack.url) as beside,
        httpx.Client(base_url=scripted_stack.url, timeout=10, limits=ALONE) as http,
    ):
        for case in CASES:
            answers = [ask(case, http, scripted_stack.port) for _ in range(TRIES)]
            median_s = statistics.median(each.after_s for each in answers)
            slowest = max(slowest, median_s)
            wrong += [f"{case.name}: {each}" for each in answers if not as_told(case, each)]
            wrong += [f"{case.name}: {median_s * 1e3:.0f} ms"] * (median_s > WITHIN_S)
    with capsys.disabled():
        print(
            f"\nadvisories: {len(CASES)} payloads, slowest median {slowest * 1e3:.0f} ms; beside them {beside.whole} streams,"
            f" longest pause {beside.longest_pause_s * 1e3:.0f} ms"
        )
    assert not wrong, "\n".join(wrong)
    assert not beside.broken
    assert beside.whole
    assert beside.longest_pause_s < LONGEST_PAUSE_S
    assert [(process.pid, process.create_time()) for process in scripted_stack.family()] == before


def as_told(case: Case, answer: Answer) -> bool:
    if case.raw is not None and answer.status == CLOSED:
        return True
    return answer.status == case.status and (case.param is None or answer.param == case.param)


def ask(case: Case, http: httpx.Client, port: int) -> Answer:
    started = time.perf_counter()
    if case.raw is not None:
        status, body = over_the_wire(case.raw, port)
    else:
        content = case.content if case.body is None else json.dumps(case.body).encode()
        response = http.request(case.method, case.path, content=content, headers=AUTHORIZATION | dict(case.headers))
        status, body = response.status_code, response.content
    after_s = time.perf_counter() - started
    error = json.loads(body).get("error", {}) if body.startswith(b"{") else {}
    return Answer(status, error.get("param"), error.get("code"), after_s)


def over_the_wire(raw: bytes, port: int) -> tuple[int, bytes]:
    """The status and what was said with it; CLOSED for a connection that is closed without a word."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        received = b""
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except OSError:  # closed while it was still being sent
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    return int(status[1]) if status else CLOSED, body


def test_the_table_says_why() -> None:
    """Forty payloads and more, each with where it comes from; what is not refused has a reason."""
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    assert all(case.why for case in CASES if case.status < 400)
    assert all(case.status < 500 for case in CASES)
