"""One contract for every hot state: the fake of the tests, and the adapter to a Valkey that is then paused and killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import valkey.asyncio

from frontend.domain.conversations import ContextSettings, Conversation, ExpiresAfter, Trim, Window
from frontend.domain.generation import Candidate, TokenLogprobs
from frontend.domain.items import (
    CompactionItem,
    FunctionCallItem,
    FunctionOutputItem,
    InputText,
    Item,
    MessageItem,
    OutputText,
    Refusal,
    StoredItem,
)
from frontend.domain.ports import HotState
from frontend.valkey import codec
from frontend.valkey.breaker import Breaker
from frontend.valkey.hot_state import open_state, window_key
from tests.fakes.hot_state import FakeHotState
from tests.support.valkey import Server

TIMEOUT_S = 0.05
LOGPROBS = [TokenLogprobs(Candidate(5, -0.25), [Candidate(5, -0.25), Candidate(6, -1.5)])]
ITEMS: list[Item] = [
    MessageItem(id="msg_1", role="user", content=[InputText("naïve 東京 🙂"), InputText("")]),
    MessageItem(
        id="msg_2", role="assistant", content=[OutputText("Yes.", LOGPROBS), Refusal("No.")], status="incomplete"
    ),
    FunctionCallItem(id="fc_1", call_id="call_1", name="f", arguments='{"a": 1}'),
    FunctionOutputItem(id="fco_1", call_id="call_1", output="a string"),
    FunctionOutputItem(id="fco_2", call_id="call_1", output=[InputText("a list")]),
    CompactionItem(id="cmp_1", summary="They met."),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("v") / "valkey.sock")
    yield running
    running.end()


@pytest.fixture(params=["fake", "valkey"])
async def state(request: pytest.FixtureRequest) -> AsyncIterator[HotState]:
    if request.param == "fake":
        yield FakeHotState()
        return
    server: Server = request.getfixturevalue("server")
    await server.answers()
    async with valkey.asyncio.Valkey.from_url(server.owner_url) as client:
        await client.flushall()
    async with open_state(server.url, Breaker(TIMEOUT_S)) as adapter:
        yield adapter


async def answers(client: valkey.asyncio.Valkey) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.ping()
            except (valkey.exceptions.ConnectionError, valkey.exceptions.BusyLoadingError):
                await asyncio.sleep(0.01)
            else:
                return


def window(version: int = 7, items: list[Item] = ITEMS, conversation_id: str = "conv_1") -> Window:
    stored = [StoredItem(item=item, seq=i + 1, response_id="resp_1", created_at=5) for i, item in enumerate(items)]
    conversation = Conversation(
        id=conversation_id,
        metadata={"a": "b"},
        created_at=1,
        last_active_at=2,
        expires_after=ExpiresAfter(anchor="last_active_at", seconds=60),
        context=ContextSettings(summary=False, budget_tokens=100),
        profile="concise",
        trim=Trim(upto=3, summary="Earlier.", summarised_upto=2),
        head=6,
        version=version,
    )
    return Window(conversation=conversation, pinned=stored[:1], history=stored[1:])


async def test_a_window_comes_back_as_it_was(state: HotState) -> None:
    """Every kind of item, every field, short and long."""
    text = "words and 東京 " * 4000
    long = MessageItem(id="msg_9", role="user", content=[InputText(text)])
    for kept in (window(), window(items=[*ITEMS, long])):
        await state.put_window("acme", kept)
        assert await state.get_window("acme", "conv_1", 7) == kept


async def test_another_version_is_not_there(state: HotState) -> None:
    """A window that is older or newer than the row in SQL can never win."""
    await state.put_window("acme", window())
    assert await state.get_window("acme", "conv_1", 6) is None
    assert await state.get_window("acme", "conv_1", 8) is None
    await state.put_window("acme", window(version=8))
    assert await state.get_window("acme", "conv_1", 8) == window(version=8)


async def test_tenants_and_conversations_are_apart(state: HotState) -> None:
    """What one tenant put is nothing to another, and dropping one window leaves the others."""
    await state.put_window("acme", window())
    await state.put_window("other", window(items=ITEMS[:2]))
    await state.put_window("acme", window(conversation_id="conv_2"))
    await state.drop_window("acme", "conv_1")
    await state.drop_window("acme", "conv_1")
    assert await state.get_window("acme", "conv_1", 7) is None
    assert await state.get_window("acme", "conv_2", 7) == window(conversation_id="conv_2")
    assert await state.get_window("other", "conv_1", 7) == window(items=ITEMS[:2])


async def test_it_is_there(state: HotState) -> None:
    """check() tells so."""
    assert await state.check() is True


async def test_a_dead_fake_keeps_quiet() -> None:
    """What the tests of services see of a dead Valkey is what the adapter makes of it."""
    state = FakeHotState()
    await state.put_window("acme", window())
    state.alive = False
    assert await state.check() is False
    assert await state.get_window("acme", "conv_1", 7) is None
    await state.put_window("acme", window())
    await state.drop_window("acme", "conv_1")


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "v.sock")
    yield running
    running.end()


async def duration(state: HotState) -> float:
    started = time.perf_counter()
    assert await state.get_window("acme", "conv_1", 7) is None
    return time.perf_counter() - started


async def heals(state: HotState) -> float:
    started = time.perf_counter()
    async with asyncio.timeout(10):
        while await state.get_window("acme", "conv_1", 7) is None:
            await asyncio.sleep(0.01)
    return time.perf_counter() - started


async def test_a_paused_server_costs_one_deadline_a_second(own_server: Server) -> None:
    """The first command waits 50 ms, the next ones not at all; two seconds after the pause everything is as before."""
    async with valkey.asyncio.Valkey.from_url(own_server.url) as client:
        await answers(client)
    async with open_state(own_server.url, Breaker(TIMEOUT_S)) as state:
        await state.put_window("acme", window())
        await state.put_window("acme", window(conversation_id="conv_2"))
        own_server.process.send_signal(signal.SIGSTOP)
        assert TIMEOUT_S <= await duration(state) < TIMEOUT_S + 0.1
        assert sum([await duration(state) for _ in range(20)]) < 0.02
        assert await state.check() is False
        own_server.process.send_signal(signal.SIGCONT)
        assert await heals(state) < 2
        assert await state.check() is True
        assert await state.get_window("acme", "conv_2", 7) == window(conversation_id="conv_2"), "replies were mixed up"


async def test_a_killed_server_costs_nothing(own_server: Server, tmp_path: Path) -> None:
    """A refused connection is known at once; a new server on the same socket is found by itself."""
    async with valkey.asyncio.Valkey.from_url(own_server.url) as client:
        await answers(client)
    async with open_state(own_server.url, Breaker(TIMEOUT_S)) as state:
        await state.put_window("acme", window())
        own_server.end()
        assert await duration(state) < TIMEOUT_S
        assert sum([await duration(state) for _ in range(20)]) < 0.02
        again = Server(tmp_path / "v.sock")
        try:
            async with asyncio.timeout(10):
                while not await state.check():
                    await asyncio.sleep(0.01)
            await state.put_window("acme", window())
            assert await state.get_window("acme", "conv_1", 7) == window()
        finally:
            again.end()


class TestBreaker:
    """With a clock of its own."""

    def breaker(self) -> tuple[Breaker, list[float]]:
        now = [0.0]
        return Breaker(TIMEOUT_S, clock=lambda: now[0]), now

    async def fails(self) -> str:
        self.tried += 1
        raise valkey.exceptions.ConnectionError

    tried = 0

    async def test_it_rests_for_a_second(self) -> None:
        """After a failure nothing is tried, then one command, and if that fails nothing again."""
        breaker, now = self.breaker()
        for at, tried in ((0.0, 1), (0.5, 1), (0.99, 1), (1.0, 2), (1.5, 2), (2.0, 3)):
            now[0] = at
            assert await breaker.run(self.fails, "otherwise") == "otherwise"
            assert self.tried == tried

    async def test_one_command_goes_ahead(self) -> None:
        """After a rest one is tried, and while it is under way no other; its success lets all through."""
        breaker, now = self.breaker()
        go = asyncio.Event()

        async def works() -> str:
            await go.wait()
            return "done"

        await breaker.run(self.fails, "otherwise")
        now[0] = 1.0
        first = asyncio.create_task(breaker.run(works, "otherwise"))
        await asyncio.sleep(0)
        assert await breaker.run(self.fails, "otherwise") == "otherwise"
        assert self.tried == 1
        go.set()
        assert await first == "done"
        assert await breaker.run(works, "otherwise") == "done"


class TestCodec:
    async def test_what_cannot_be_read_is_not_there(self, server: Server) -> None:
        """Another version's form, a cut value, somebody else's: a miss, and not an error."""
        async with (
            valkey.asyncio.Valkey.from_url(server.owner_url) as client,
            open_state(server.url, Breaker(TIMEOUT_S)) as state,
        ):
            await answers(client)
            for value in (b"", b"\x02broken", b"\x01\xc1", b"\x07later", b'{"json": true}'):
                await client.set(window_key("acme", "conv_1"), value)
                assert await state.get_window("acme", "conv_1", 7) is None

    async def test_it_ends_by_itself(self, server: Server) -> None:
        """Every key has a time to live: Valkey's memory is bounded, and it drops what has one."""
        async with (
            valkey.asyncio.Valkey.from_url(server.owner_url) as client,
            open_state(server.url, Breaker(TIMEOUT_S)) as state,
        ):
            await answers(client)
            await state.put_window("acme", window())
            assert 3500 < await client.ttl(window_key("acme", "conv_1")) <= 3600

    async def test_a_large_window_is_not_kept(self, server: Server) -> None:
        """Over 1 MiB it is read from SQL, and the smaller one before it is gone."""
        large = MessageItem(id="msg_9", role="user", content=[InputText("x" * codec.MOST_BYTES)])
        async with (
            valkey.asyncio.Valkey.from_url(server.owner_url) as client,
            open_state(server.url, Breaker(TIMEOUT_S)) as state,
        ):
            await answers(client)
            await state.put_window("acme", window())
            await state.put_window("acme", window(items=[large]))
            assert await client.get(window_key("acme", "conv_1")) is None

    def test_text_is_compressed(self) -> None:
        """A window of ordinary text takes less than half of its size."""
        words = " ".join(f"word{i % 97} and" for i in range(2000))
        item = MessageItem(id="msg_9", role="user", content=[InputText(words)])
        data = codec.write_window(window(items=[item]))
        assert data is not None
        assert len(data) < len(words) / 2
        assert msgspec.structs.asdict(window(items=[item])) == msgspec.structs.asdict(
            codec.read_window(data) or window()
        )
