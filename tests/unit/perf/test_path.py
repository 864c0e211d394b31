"""What the way costs: whose CPU is counted, over what it is spread, and what the report says of whom."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os

import psutil
import pytest

from perf import path

USAGE = b'"usage":{"prompt_tokens":60,"total_tokens":70,"completion_tokens":10}'
ANSWER = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\ndata: {' + USAGE + b"}\n\ndata: [DONE]\n\n"


class Server:
    """As one that streams chats."""

    def __init__(self) -> None:
        self.connections: list[asyncio.Task[None] | None] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER))


async def test_cpu_is_spread_over_the_tokens_that_came() -> None:
    """What the parts used from the beginning to the end of a level, and nothing before."""
    used = itertools.count(5)  # seconds, one more each time that it is asked
    answer = Server()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        running = path.Running(f"http://127.0.0.1:{port}", "key", "model", lambda: {"one": next(used), "other": 7})
        found = await path.level(running, streams=3, seconds=0.05)
        await asyncio.gather(*(each for each in answer.connections if each is not None))
    tokens = 1e6 / found.us_per_token
    assert tokens == pytest.approx(10 * round(tokens / 10))  # 10 an answer
    assert tokens > 29
    assert found.cpu_us_per_token == {"one": found.us_per_token, "other": 0}
    assert (found.streams, found.errors) == (3, 0)


def test_a_process_does_not_pay_for_its_children() -> None:
    """EngineCore is a child of vLLM's API server."""
    own = os.times()
    counted_s = path.own_cpu_s(psutil.Process())
    assert own.user + own.system - 0.02 <= counted_s <= sum(os.times()[:2]) + 0.02


def level(streams: int, us: float, tokens_per_s: float = 1000.0) -> path.Level:
    return path.Level(streams, tokens_per_s, 0.02, 5.1, {"frontend": us}, us * tokens_per_s / 1e6, 0)


FOUND: path.Found = {
    "ours": [level(8, 40, 400), level(32, 20, 1600), level(64, 30, 1500)],
    "vllm serve, no engine": [level(8, 100), level(32, 80)],
    "vllm serve, no model": [level(8, 150), level(32, 140)],
}


def test_ratios_are_of_the_same_number_of_streams() -> None:
    """And those of a level that one of the two has not had are none."""
    text = path.report(FOUND)
    assert "| vllm serve, no engine | 32 | 1,000 | 20 ms | 5.10 s | 0.0800 | 4.00 | 0 |" in text
    assert "| vllm serve, no model | 8 | 1,000 | 20 ms | 5.10 s | 0.1500 | 3.75 | 0 |" in text
    assert "no engine`: 2.5 to 4.0 times ours, the target is 3 times at least: missed" in text


def test_saturated_is_where_most_tokens_come() -> None:
    """Not where there are most streams."""
    assert "(32 streams): 20.0 µs, the target is 25 µs at most: met" in path.report(FOUND)


def test_every_row_has_as_many_cells_as_its_head() -> None:
    """Markdown shows a table only then."""
    for table in path.report(FOUND).split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_search_ends_where_the_slowest_take_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """With that level as its last."""
    slow = {8: 5.0, 32: 6.0, 64: 10.1, 128: 30.0}

    async def measured(_running: path.Running, streams: int, _seconds: float) -> path.Level:
        return path.Level(streams, 1.0, 0.1, slow[streams], {}, 0.1, 0)

    monkeypatch.setattr(path, "level", measured)
    plan = path.Plan(levels=[8, 32, 64, 128], seconds=1)
    running = path.Running("", "", "", dict)
    assert [each.streams for each in path.levels(running, plan, "ours", lambda _: None)] == [8, 32, 64]
