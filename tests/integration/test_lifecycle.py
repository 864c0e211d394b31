"""The family's one fate: whatever is killed, whenever, nothing is orphaned, what can come back does, and the next start works."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from frontend.settings import EngineSettings
from tests.support.app import HEADERS
from tests.support.stack import API_KEY, BIN, Stack

ENGINE_KILLS = int(os.environ.get("HERMES2_ENGINE_KILLS", "1"))
"""How often the real engine is killed in the middle of a turn; `make crashes` does it 10 times."""
LONG: Any = {
    "format": {
        "type": "json_schema",
        "name": "count",
        "schema": {
            "type": "object",
            "properties": {"numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 200}},
            "required": ["numbers"],
            "additionalProperties": False,
        },
    }
}
"""An answer that cannot end by itself before somebody kills its engine."""
TURN = {"model": "hermes-2", "messages": [{"role": "user", "content": "Count from one upwards."}]}


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def seconds_until_gone(processes: list[psutil.Process], limit_s: float = 5) -> float:
    started = time.monotonic()
    while alive(processes):
        assert time.monotonic() - started < limit_s, [(p.pid, p.cmdline()) for p in alive(processes)]
        time.sleep(0.02)
    return time.monotonic() - started


def kill_launcher(stack: Stack) -> list[psutil.Process]:
    """kill -9 of the launcher alone; its family as it was."""
    family = stack.family()
    stack.process.kill()
    stack.process.wait()
    return family


def ask(stack: Stack, **more: object) -> httpx.Response:
    return httpx.post(
        f"{stack.url}/v1/chat/completions", json=TURN | {"max_tokens": 4} | more, headers=HEADERS, timeout=60
    )


def broken_off(stack: Stack) -> None:
    """A request whose server ends before it has answered: the frontend says so while it still can, else the connection breaks."""
    with contextlib.suppress(httpx.HTTPError):
        assert ask(stack, max_tokens=5000).status_code == 503


def killed_start(stack: Stack) -> None:
    """A start that somebody ends before it is ready."""
    with pytest.raises(AssertionError):
        stack.start()


class TestScripted:
    """Everything real but the engine, so that starting takes seconds."""

    @pytest.fixture
    def stack(self, tmp_path: Path) -> Iterator[Stack]:
        with Stack(tmp_path, ENGINE_BACKEND="scripted", ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=20) as running:
            yield running

    def test_sigterm_lets_open_requests_finish(self, stack: Stack) -> None:
        """New ones are refused at once; a stream and a whole reply end as if nothing had happened; the exit status is 0."""
        replies: dict[bool, str] = {}

        def one(stream: bool) -> None:
            replies[stream] = ask(stack, stream=stream, max_tokens=100).text

        threads = [threading.Thread(target=one, args=(stream,)) for stream in (True, False)]
        for thread in threads:
            thread.start()
        while "hermes2_generations_open 2.0" not in httpx.get(f"{stack.url}/metrics", headers=HEADERS).text:
            time.sleep(0.02)
        stack.process.send_signal(signal.SIGTERM)
        stack.wait_for("stopping", 5)
        time.sleep(0.2)
        with pytest.raises(httpx.ConnectError):
            ask(stack)
        for thread in threads:
            thread.join(timeout=30)
        assert replies[True].endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in replies[True]
        assert '"completion_tokens":100' in replies[False]
        assert stack.process.wait(timeout=30) == 0

    def test_ctrl_c_twice_does_not_wait(self, stack: Stack) -> None:
        """The second signal ends what is still open."""
        thread = threading.Thread(target=broken_off, args=(stack,))
        thread.start()
        while "hermes2_generations_open 1.0" not in httpx.get(f"{stack.url}/metrics", headers=HEADERS).text:
            time.sleep(0.02)
        family = stack.family()
        stack.process.send_signal(signal.SIGINT)
        stack.wait_for("stopping", 5)
        stack.process.send_signal(signal.SIGINT)
        stack.process.wait(timeout=5)
        seconds_until_gone(family)
        thread.join(timeout=5)

    @pytest.mark.parametrize("victim", ["tritonserver", "triton_python_backend_stub", "valkey-server", "granian"])
    def test_a_killed_child_comes_back(self, stack: Stack, victim: str) -> None:
        """kill -9 of each part: noticed within 2 s, started anew, and the service answers again."""
        seen = len(stack.lines)
        target = next(
            p for p in stack.family() if victim in " ".join(p.cmdline() or [p.name()]) or p.name().startswith(victim)
        )
        target.kill()
        assert stack.wait_for("starting it anew", 5, seen) < 2.5
        stack.wait_for("ready after", 20, seen)
        reply = ask(stack)
        assert reply.status_code == 200, reply.text
        whole = {"status": "ready", "engine": "ok", "sql": "ok", "valkey": "ok"}
        until = time.monotonic() + 2  # Valkey is not asked for a second after it has failed
        while httpx.get(f"{stack.url}/health/ready").json() != whole:
            assert time.monotonic() < until
            time.sleep(0.1)

    def test_a_hung_engine_is_restarted(self, stack: Stack) -> None:
        """SIGSTOP of the stub: found by asking its loop, not its socket, within 10 s; requests meanwhile are 503, not hung."""
        seen = len(stack.lines)
        stack.find("triton_python_backend_stub").suspend()
        ready = httpx.get(f"{stack.url}/health/ready", timeout=5)
        assert (ready.status_code, ready.json()["engine"]) == (503, "unavailable")
        assert stack.wait_for("starting it anew", 15, seen) < 11
        stack.wait_for("triton   | ready after", 20, seen)
        assert ask(stack).status_code == 200

    def test_without_valkey_the_service_goes_on(self, stack: Stack) -> None:
        """Paused, not dead: ready, degraded, and no request waits for it."""
        process = next(p for p in stack.family() if p.name().startswith("valkey"))
        process.suspend()
        try:
            started = time.monotonic()
            assert httpx.get(f"{stack.url}/health/ready").json() == {
                "status": "ready",
                "engine": "ok",
                "sql": "ok",
                "valkey": "degraded",
            }
            assert ask(stack).status_code == 200
            assert time.monotonic() - started < 2
        finally:
            process.resume()

    def test_a_cut_stream_ends_in_an_error(self, stack: Stack) -> None:
        """kill -9 of Triton mid-stream: the SDK raises, it does not take the torso for the whole."""
        client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0, timeout=30)
        with client, client.chat.completions.create(**TURN, max_tokens=1000, stream=True) as stream:  # type: ignore[call-overload]  # one dict for all
            next(iter(stream))
            stack.find("bin/tritonserver").kill()
            with pytest.raises(openai.APIError):
                list(stream)

    def test_two_launchers_do_not_share_a_home(self, stack: Stack) -> None:
        """The second waits for the first to end, and says for whom."""
        second = Stack(stack.home, ENGINE_BACKEND="scripted")
        process = subprocess.Popen(
            [str(BIN / "hermes2"), "serve"],
            env=second.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert (
                process.stdout.readline().strip()
                == f"hermes2  | waiting for the launcher with pid {stack.process.pid} to end"
            )
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]  # a pipe was asked for

    def test_two_workers_serve_and_count_together(self, tmp_path: Path) -> None:
        """HERMES2_WORKERS=2: both answer, and one scrape counts the requests of both."""
        with Stack(tmp_path / "two", ENGINE_BACKEND="scripted", WORKERS=2) as stack:
            for _ in range(20):
                assert ask(stack).status_code == 200
            text = httpx.get(f"{stack.url}/metrics", headers=HEADERS).text
            assert 'hermes2_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 20.0' in text
            family = kill_launcher(stack)
            assert seconds_until_gone(family) < 5


class TestRefusals:
    """What keeps the service from starting is said in one line, with exit status 1."""

    def run(self, stack: Stack) -> tuple[int, str]:
        done = subprocess.run(
            [str(BIN / "hermes2"), "serve"],
            env=stack.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stderr.strip()

    @pytest.mark.parametrize(
        ("setting", "value", "says"),
        [
            ("PORT", "99999", "port (HERMES2_PORT): expected `int` <= 65535"),
            ("MODEL", "no such model", "model (HERMES2_MODEL): 'no such model' is neither"),
            ("ENGINE_ENVIRONMENT", "/nowhere", "/nowhere"),
            ("API_KEY", "short", "api_key (HERMES2_API_KEY): at least 24 characters"),
        ],
    )
    def test_a_wrong_setting(self, tmp_path: Path, setting: str, value: str, says: str) -> None:
        """Named by path and variable."""
        status, error = self.run(Stack(tmp_path, **{setting: value}))
        assert status == 1
        assert error.startswith("hermes2: ")
        assert says in error
        assert len(error.splitlines()) == 1

    def test_a_taken_port(self, tmp_path: Path) -> None:
        """Which one, and whose setting it is."""
        stack = Stack(tmp_path)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", stack.port))
            taken.listen()
            status, error = self.run(stack)
        assert (status, error) == (
            1,
            f"hermes2: port (HERMES2_PORT): 127.0.0.1:{stack.port} cannot be used: Address already in use",
        )

    def test_a_budget_that_is_too_small(self, tmp_path: Path) -> None:
        """Refused with the arithmetic."""
        status, error = self.run(Stack(tmp_path, MEMORY_LIMIT="4GB"))
        assert status == 1
        assert "memory_limit (HERMES2_MEMORY_LIMIT) is too small for this model" in error
        assert "weights" in error
        assert "sum" in error

    def test_an_engine_that_cannot_load(self, tmp_path: Path) -> None:
        """The launcher ends when the first start of a part fails, and nothing is left of the others."""
        stack = Stack(tmp_path, ENGINE_EXTRA='{"no_such_argument": 1}')
        status, error = self.run(stack)
        assert (status, error) == (1, "hermes2: triton did not start: ended with status 1; its own words stand above")


@pytest.mark.real
class TestReal:
    """With vLLM's processes in the family."""

    def test_killed_at_any_moment_of_the_start(self, tmp_path: Path) -> None:
        """kill -9 of the launcher 1, 4 and 12 s after it began, mid-load: all gone within 5 s."""
        stack = Stack(tmp_path)
        for moment_s in (1, 4, 12):
            starting = threading.Thread(target=killed_start, args=(stack,))
            starting.start()
            time.sleep(moment_s)
            family = kill_launcher(stack)
            starting.join()
            assert seconds_until_gone(family) < 5

    def test_the_whole_story(self, tmp_path: Path) -> None:
        """After that: a start, an EngineCore that pauses and one that is killed mid-stream, recovery, a killed launcher, and
        the next start, for which an engine without a model will do."""
        with Stack(tmp_path) as stack:
            engine, seen = stack.find("VLLM::EngineCore"), len(stack.lines)
            engine.suspend()  # as a long step does on a starved machine: longer than one probe waits
            time.sleep(5)
            engine.resume()
            assert ask(stack).status_code == 200
            assert not any("starting it anew" in line for line in stack.lines[seen:])
            with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0, timeout=60) as client:
                conversation = client.conversations.create().id
                for number in range(ENGINE_KILLS):
                    victim = ("VLLM::EngineCore", "tritonserver")[number % 2]
                    killed_mid_turn(stack, client, conversation, number, victim)

            family = kill_launcher(stack)
            assert any("VLLM" in " ".join(p.cmdline()) for p in alive(family)) or not alive(family)
            assert seconds_until_gone(family) < 5
        with Stack(tmp_path, ENGINE_BACKEND="scripted") as stack:
            assert ask(stack).status_code == 200
            assert stack.stop() == 0
            assert not list(Path("/dev/shm").glob(f"{shm_prefix(stack)}*"))  # noqa: S108  # Triton's choice of place


def killed_mid_turn(stack: Stack, client: openai.OpenAI, conversation: str, number: int, victim: str) -> None:
    """The turn has failed, and says so; those before it are there, whole and once; the next one is answered."""
    kept = client.responses.create(
        model="hermes-2", input=f"Number {number}.", conversation=conversation, max_output_tokens=8
    )
    stream = client.responses.create(
        model="hermes-2", input="Count.", conversation=conversation, max_output_tokens=2000, stream=True, text=LONG
    )
    events = iter(stream)
    next(event for event in events if event.type == "response.output_text.delta")
    time.sleep(random.uniform(0, 1))  # noqa: S311  # no secret
    engine, worker, seen = stack.find(victim), stack.find("VLLM::Worker"), len(stack.lines)
    engine.kill()
    *_, last = events
    assert last.type == "response.failed"
    assert client.responses.retrieve(last.response.id).status == "failed"
    noticed_s = stack.wait_for("starting it anew", 10, seen)  # a death is not waited out as a hang is
    assert noticed_s < EngineSettings().hang_timeout_s
    seconds_until_gone([engine, worker])
    assert ask(stack).status_code == 503
    stack.wait_for("triton   | ready after", 120, seen)
    assert ask(stack).status_code == 200
    items = list(client.conversations.items.list(conversation, order="asc", limit=100))
    said = [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]
    assert said[::2] == [f"Number {i}." for i in range(number + 1)]
    assert said[-1] == kept.output_text


def shm_prefix(stack: Stack) -> str:
    """Of Triton's shared memory regions, read off the running server's command line in the log of its options."""
    line = next(line for line in stack.lines if "shm-region-prefix-name" in line)
    return line.split('shm-region-prefix-name":"')[1].split('"')[0]


def test_make_serve_ends_with_make(tmp_path: Path) -> None:
    """kill -9 of `make serve`: the launcher below it ends its family in order."""
    stack = Stack(tmp_path, ENGINE_BACKEND="scripted")
    environment = stack.environment | {"HERMES2_SERVICE_ENVIRONMENT": str(BIN.parent)}
    make = subprocess.Popen(
        ["make", "serve"], env=environment, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert make.stdout is not None
        for line in make.stdout:
            if "| ready: " in line:
                break
        family = psutil.Process(make.pid).children(recursive=True)
        os.kill(make.pid, signal.SIGKILL)
        seconds_until_gone(family, 15)
    finally:
        make.kill()
        make.wait()
        make.stdout.close()  # type: ignore[union-attr]  # a pipe was asked for
