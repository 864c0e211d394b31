"""frontend/services/turns: one writer per conversation, all of a turn or nothing, and an end for each."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from frontend.domain.conversations import Conversation, Window
from frontend.domain.errors import ConversationLocked, QuotaExceeded, Unavailable
from frontend.domain.items import InputText, MessageItem, OutputText
from frontend.domain.responses import Response
from frontend.domain.storage import Database, Turn
from frontend.services import process
from frontend.services.turns import Stale, TurnKeeper, TurnLost
from tests.fakes.hot_state import FakeHotState
from tests.support.app import temporary_database

TENANT, CONVERSATION = "default", "conv_1"
QUESTION = MessageItem(id="msg_q", role="user", content=[InputText("What is the capital of France?")])
ANSWER = MessageItem(id="msg_a", role="assistant", content=[OutputText("Paris")])


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with temporary_database() as opened:
        async with opened.writing() as uow:
            await uow.keys.ensure_tenant(TENANT, 0)
            await uow.conversations.add(
                TENANT, Conversation(id=CONVERSATION, metadata={}, created_at=0, last_active_at=0), 10
            )
        yield opened


@pytest.fixture
def keeper(database: Database, clock: Clock) -> TurnKeeper:
    return TurnKeeper(database, FakeHotState(), lease_s=15, most_items=100, clock=clock)


async def window(database: Database) -> Window:
    async with database.reading() as uow:
        conversation = await uow.conversations.get(TENANT, CONVERSATION)
        return Window(conversation=conversation, pinned=[], history=await uow.items.behind(TENANT, CONVERSATION, 0))


RUNNING = Response(
    id="resp_1", model="m", status="in_progress", parameters=b"{}", created_at=1, conversation_id=CONVERSATION
)
COMPLETED = msgspec.structs.replace(RUNNING, status="completed", completed_at=2, output=[ANSWER])


async def texts(database: Database) -> list[str]:
    return [stored.item.text for stored in (await window(database)).history if isinstance(stored.item, MessageItem)]


async def running(database: Database) -> list[Turn]:
    async with database.reading() as uow:
        return await uow.turns.running()


async def stored_response(database: Database) -> Response:
    async with database.reading() as uow:
        return await uow.responses.get(TENANT, "resp_1")


async def test_a_turn_is_stored_with_its_response(database: Database, keeper: TurnKeeper) -> None:
    """Known when it begins, its items in the conversation when it ends, its lease gone."""
    turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
    assert (await stored_response(database)).status == "in_progress"
    assert await texts(database) == []
    await keeper.store(turn, [ANSWER], COMPLETED)
    assert await texts(database) == [QUESTION.text, "Paris"]
    assert (await stored_response(database)).output == [ANSWER]
    assert await running(database) == []


async def test_the_second_writer_is_refused(database: Database, keeper: TurnKeeper) -> None:
    """And let in when the first has ended."""
    seen = await window(database)
    turn = await keeper.begin(TENANT, "turn_1", items=[], window=seen)
    with pytest.raises(ConversationLocked):
        await keeper.begin(TENANT, "turn_2", items=[], window=seen)
    await keeper.drop(turn, None)
    await keeper.begin(TENANT, "turn_2", items=[], window=seen)


async def test_a_window_that_is_old_is_read_again(database: Database, keeper: TurnKeeper) -> None:
    """A turn that ended since would be missing in the prompt."""
    seen = await window(database)
    await keeper.store(await keeper.begin(TENANT, "turn_1", items=[QUESTION], window=seen), [ANSWER], None)
    with pytest.raises(Stale):
        await keeper.begin(TENANT, "turn_2", items=[], window=seen)
    assert await running(database) == []


async def test_who_has_lost_its_lease_stores_nothing(database: Database, keeper: TurnKeeper, clock: Clock) -> None:
    """It slept for too long, and another one has ended its turn: the fence."""
    turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
    clock.now += 16
    assert await keeper.end_orphans() == 0  # it does not give up its own
    other = TurnKeeper(database, FakeHotState(), lease_s=15, most_items=100, clock=clock)
    assert await other.end_orphans() == 1
    with pytest.raises(TurnLost):
        await keeper.store(turn, [ANSWER], COMPLETED)
    assert await texts(database) == []
    failed = await stored_response(database)
    assert (failed.status, failed.output, failed.error and failed.error.code) == ("failed", [], "server_error")


async def test_leases_are_renewed(database: Database, clock: Clock) -> None:
    """A turn may take longer than a lease, as long as its process lives."""
    keeper = TurnKeeper(database, FakeHotState(), lease_s=0.06, most_items=100)
    async with keeper.running():
        turn = await keeper.begin(TENANT, "turn_1", items=[QUESTION], window=await window(database))
        await asyncio.sleep(0.3)
        await keeper.store(turn, [ANSWER], None)
    assert await texts(database) == [QUESTION.text, "Paris"]


async def test_the_turn_of_a_dead_process_ends_at_once(database: Database, keeper: TurnKeeper) -> None:
    """Without waiting for its lease: this machine knows that the process is gone."""
    dead = subprocess.run(  # noqa: ASYNC221  # it takes 50 ms, and nothing else runs
        [sys.executable, "-c", "from frontend.services.process import this_process; print(this_process())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    async with database.writing() as uow:
        await uow.responses.add(TENANT, RUNNING, [QUESTION])
        lease = Turn(id="resp_1", tenant=TENANT, conversation_id=CONVERSATION, owner=dead, lease_until=2e9)
        await uow.turns.begin(lease, 0)
    turn = await keeper.begin(TENANT, "turn_2", items=[], window=await window(database))
    assert (await stored_response(database)).status == "failed"
    await keeper.drop(turn, None)


async def test_a_chats_turn_has_no_response_to_end(database: Database, keeper: TurnKeeper, clock: Clock) -> None:
    """An orphan without a response gives its conversation back all the same."""
    await keeper.begin(TENANT, "turn_1", items=[QUESTION], window=await window(database))
    clock.now += 16
    assert await keeper.end_orphans() == 0  # it does not give up its own
    other = TurnKeeper(database, FakeHotState(), lease_s=15, most_items=100, clock=clock)
    assert await other.end_orphans() == 1
    assert await running(database) == []


async def test_what_comes_to_nothing_leaves_no_trace(database: Database, keeper: TurnKeeper) -> None:
    """The engine failed before the first token: the client got a status for it, and knows no response."""
    turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
    await keeper.drop(turn, None)
    assert await texts(database) == []
    async with database.reading() as uow:
        with pytest.raises(Exception, match="resp_1"):
            await uow.responses.get(TENANT, "resp_1")


async def test_a_deleted_conversation_takes_its_turn_along(database: Database, keeper: TurnKeeper) -> None:
    turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
    async with database.writing() as uow:
        await uow.conversations.delete(TENANT, CONVERSATION)
    with pytest.raises(TurnLost):
        await keeper.store(turn, [ANSWER], COMPLETED)


async def test_leaving_while_a_turn_begins_or_ends(database: Database, keeper: TurnKeeper) -> None:
    """Cancelled while it begins: nothing has begun. Cancelled while it is stored: it is stored."""
    for pause_s in (0.0, 0.0005, 0.001, 0.002, 0.005):
        beginning = asyncio.create_task(keeper.begin(TENANT, "turn_1", items=[QUESTION], window=await window(database)))
        await asyncio.sleep(pause_s)
        if beginning.cancel():
            await asyncio.wait([beginning])
        if not beginning.cancelled():
            await keeper.drop(beginning.result(), None)
        async with asyncio.timeout(5), keeper.running():
            pass
        assert await running(database) == []
    turn = await keeper.begin(TENANT, "turn_2", items=[QUESTION], window=await window(database))
    storing = asyncio.create_task(keeper.store(turn, [ANSWER], None))
    await asyncio.sleep(0)
    storing.cancel()
    await asyncio.wait([storing])
    async with keeper.running():
        pass
    assert await texts(database) == [QUESTION.text, "Paris"]


class Broken:
    """The database, away for as long as it is told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.away = False

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Any]:
        if self.away:
            raise Unavailable("away")
        async with self._database.writing() as uow:
            yield uow

    reading = writing

    async def check(self) -> bool:
        return not self.away


async def test_a_turn_that_could_not_be_stored_is_ended_later(database: Database) -> None:
    """The lease does not stay for ever, though its process lives."""
    broken = Broken(database)
    keeper = TurnKeeper(broken, FakeHotState(), lease_s=0.06, most_items=100)
    turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
    broken.away = True
    with pytest.raises(Unavailable):
        await keeper.store(turn, [ANSWER], COMPLETED)
    broken.away = False
    async with keeper.running(), asyncio.timeout(5):
        while await running(database):
            await asyncio.sleep(0.01)
    assert (await stored_response(database)).status == "failed"
    assert await texts(database) == []


def test_processes_know_each_other() -> None:
    """This one lives; a pid that was used again is another process; elsewhere, nothing is certain."""
    me = process.this_process()
    place, pid, started = me.rsplit("/", 2)
    assert pid == str(os.getpid())
    assert not process.is_dead(me)
    assert process.is_dead(f"{place}/{pid}/{int(started) - 1}")
    assert process.is_dead(f"{place}/{2**22 + 1}/1")
    assert not process.is_dead(f"elsewhere/{2**22 + 1}/1")


async def test_an_outage_longer_than_a_lease_ends_nothing(database: Database) -> None:
    """A process does not take its own turn for an orphan: it renews first, and nobody else wanted the conversation."""
    broken = Broken(database)
    keeper = TurnKeeper(broken, FakeHotState(), lease_s=0.06, most_items=100)
    async with keeper.running():
        turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
        broken.away = True
        await asyncio.sleep(0.2)
        broken.away = False
        await keeper.store(turn, [ANSWER], COMPLETED)
    assert await texts(database) == [QUESTION.text, "Paris"]


async def test_a_deleted_response_gives_its_conversation_back(database: Database, keeper: TurnKeeper) -> None:
    """At once, and for good."""
    turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
    async with database.writing() as uow:
        await uow.responses.delete(TENANT, "resp_1")
    assert await running(database) == []
    with pytest.raises(TurnLost):
        await keeper.store(turn, [ANSWER], COMPLETED)
    await keeper.drop(await keeper.begin(TENANT, "turn_2", items=[], window=await window(database)), None)


class Deaf(Broken):
    """What it is told to commit it commits, and the answer is lost."""

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Any]:
        async with self._database.writing() as uow:
            yield uow
        if self.away:
            raise Unavailable("no answer")

    def reading(self) -> Any:
        return self._database.reading()


async def test_an_answer_of_the_database_may_be_lost(database: Database) -> None:
    """Of a turn's end: it is stored, and its client need not try again. Of its beginning: it is undone."""
    deaf = Deaf(database)
    keeper = TurnKeeper(deaf, FakeHotState(), lease_s=0.3, most_items=100)
    turn = await keeper.begin(TENANT, "resp_1", items=[QUESTION], window=await window(database), response=RUNNING)
    deaf.away = True
    await keeper.store(turn, [ANSWER], COMPLETED)
    assert await texts(database) == [QUESTION.text, "Paris"]
    with pytest.raises(Unavailable):
        await keeper.begin(TENANT, "turn_2", items=[QUESTION], window=await window(database))
    deaf.away = False
    async with keeper.running(), asyncio.timeout(5):
        while await running(database):
            await asyncio.sleep(0.01)


async def test_a_full_conversation_is_told_before_the_answer(database: Database, clock: Clock) -> None:
    keeper = TurnKeeper(database, FakeHotState(), lease_s=15, most_items=3, clock=clock)
    turn = await keeper.begin(TENANT, "turn_1", items=[QUESTION], window=await window(database))
    await keeper.store(turn, [ANSWER], None)
    with pytest.raises(QuotaExceeded):
        await keeper.begin(TENANT, "turn_2", items=[QUESTION], window=await window(database))
    assert await running(database) == []
