"""Turns, and what happens at the same time, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable

import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.errors import ConversationLocked, NotFound
from frontend.domain.responses import ResponseError
from tests.support.database import contents, opened
from tests.support.records import (
    EVERYTHING,
    MOST,
    NOW,
    completed,
    conversation,
    messages,
    response,
    sequence,
    session,
    turn,
    with_items,
)


async def test_a_conversation_has_one_turn(database: SqlDatabase) -> None:
    """Until it ends; turns without a conversation do not meet."""
    await with_items(database)
    async with database.writing() as uow:
        await uow.turns.begin(turn("t1"), NOW)
        await uow.turns.begin(turn("t2", None), NOW)
        await uow.turns.begin(turn("t3", None, owner="process 2"), NOW)
        with pytest.raises(ConversationLocked):
            await uow.turns.begin(turn("t4"), NOW)
        expected = [turn("t1"), turn("t2", None), turn("t3", None, owner="process 2")]
        assert sorted(await uow.turns.running(), key=lambda each: each.id) == expected
        assert await uow.turns.end(turn("t1"))
        assert not await uow.turns.end(turn("t1"))
        await uow.turns.begin(turn("t4"), NOW)
    with pytest.raises(NotFound):
        async with database.writing() as uow:
            await uow.turns.begin(turn("t5", "conv_2"), NOW)


async def test_a_turn_is_its_owners(database: SqlDatabase) -> None:
    """Another process cannot end it, and renews only its own."""
    await with_items(database)
    async with database.writing() as uow:
        await uow.turns.begin(turn("t1"), NOW)
        await uow.turns.begin(turn("t2", None, owner="process 2"), NOW)
        assert not await uow.turns.end(turn("t1", owner="process 2"))
        await uow.turns.renew("process 2", [each.id for each in await uow.turns.running()], NOW + 77.5)
        leases = {each.id: each.lease_until for each in await uow.turns.running()}
        assert leases == {"t1": NOW + 1000, "t2": NOW + 77.5}


async def test_a_lease_that_has_run_out_is_taken_over(database: SqlDatabase) -> None:
    """Its turn has ended, its response has failed, and the one who had it cannot store anything."""
    await with_items(database)
    async with database.writing() as uow:
        await uow.turns.begin(turn(lease_until=NOW + 1.5), NOW)
        await uow.responses.add("a", response(conversation_id="conv_1"), messages("i1"))
        with pytest.raises(ConversationLocked):
            await uow.turns.begin(turn("t2"), NOW + 1.4)
        await uow.turns.begin(turn("t2"), NOW + 1.6)
        assert not await uow.turns.end(turn())
        failed = await uow.responses.get("a", "resp_1")
        assert (failed.status, failed.completed_at) == ("failed", NOW + 1)
        assert failed.error == ResponseError("server_error", "The process that ran this turn has ended.")
        assert not await uow.responses.end("a", completed(conversation_id="conv_1"))
    assert await sequence(database) == []


# At the same time: two databases are two processes, each with its own connections


@pytest.fixture
async def both(database_url: str) -> AsyncIterator[list[SqlDatabase]]:
    async with opened(database_url, 30) as one, opened(database_url, 30) as other:
        yield [one, other]


async def outcomes(work: Iterable[Awaitable[object]]) -> Counter[str]:
    """How often each way of ending came, by the name of its exception."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    return Counter(type(each).__name__ if isinstance(each, BaseException) else "done" for each in ended)


@pytest.mark.parametrize("expired", [False, True])
async def test_one_of_fifty_turns_begins(both: list[SqlDatabase], expired: bool) -> None:
    """On a free conversation, and on one whose lease has just run out."""
    await with_items(both[0])
    if expired:
        async with both[0].writing() as uow:
            await uow.turns.begin(turn("old", lease_until=NOW - 1), NOW - 2)

    async def begin(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.turns.begin(turn(f"t{n}"), NOW)

    assert await outcomes(begin(n) for n in range(50)) == {"done": 1, "ConversationLocked": 49}
    async with both[0].reading() as uow:
        assert len(await uow.turns.running()) == 1


async def test_a_turn_ends_once(both: list[SqlDatabase]) -> None:
    """However many think that it is theirs to end."""
    await with_items(both[0])
    async with both[0].writing() as uow:
        await uow.turns.begin(turn(), NOW)

    async def end(n: int) -> bool:
        async with both[n % 2].writing() as uow:
            return await uow.turns.end(turn())

    assert sorted(await asyncio.gather(*(end(n) for n in range(10)))) == [False] * 9 + [True]


async def test_numbers_have_no_gap_and_come_once(both: list[SqlDatabase]) -> None:
    """Appends and ended turns on one conversation, some taken back in the middle."""
    await with_items(both[0])

    async def append(n: int) -> None:
        async with both[n % 2].writing() as uow:
            new = messages(f"a{n}", f"b{n}")
            await uow.conversations.append("a", "conv_1", new, now=NOW, most=MOST)
            if n % 5 == 0:
                raise ZeroDivisionError

    async def respond(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.responses.add("a", response(f"r{n}", conversation_id="conv_1"), messages(f"in{n}"))
        async with both[n % 2].writing() as uow:
            ended = completed(f"r{n}", conversation_id="conv_1", output=messages(f"out{n}"))
            assert await uow.responses.end("a", ended)

    done = await outcomes([*(append(n) for n in range(30)), *(respond(n) for n in range(10))])
    assert done == {"done": 34, "ZeroDivisionError": 6}
    numbered = await sequence(both[0])
    assert [seq for seq, _ in numbered] == list(range(1, 69))
    names = [name for _, name in numbered]
    for n in range(10):
        assert names.index(f"out{n}") == names.index(f"in{n}") + 1
    async with both[1].reading() as uow:
        told = await uow.conversations.get("a", "conv_1")
    assert (told.head, told.version) == (68, 34)


async def test_a_quota_holds_for_twenty_at_once(both: list[SqlDatabase]) -> None:
    """Exactly so many are added, of a tenant that nobody has seen before."""

    async def add(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.conversations.add("a", conversation(f"c{n}"), 5)

    assert await outcomes(add(n) for n in range(20)) == {"done": 5, "QuotaExceeded": 15}

    async def open_session(n: int) -> None:
        async with both[n % 2].writing() as uow:
            await uow.sessions.add("a", session(f"s{n}", conversation_id=some), 5)

    async with both[0].reading() as uow:
        some = (await uow.conversations.page("a", EVERYTHING, {}, NOW)).data[0].id
    assert await outcomes(open_session(n) for n in range(20)) == {"done": 5, "QuotaExceeded": 15}


async def test_a_conversation_is_deleted_under_its_turns(both: list[SqlDatabase], database_url: str) -> None:
    """All that goes on in it has happened before, or finds it gone; nothing is left, and nobody waits in a circle."""
    names = [f"c{n}" for n in range(10)]
    async with both[0].writing() as uow:
        for name in names:
            await uow.conversations.add("a", conversation(name), MOST)
            await uow.conversations.append("a", name, messages("i0"), now=NOW, most=MOST)
            await uow.responses.add("a", response(f"old_{name}", conversation_id=name), messages("i1"))
            await uow.responses.end("a", completed(f"old_{name}", conversation_id=name))
            await uow.turns.begin(turn(name, name), NOW)
            await uow.responses.add("a", response(name, conversation_id=name), messages("i2"))

    async def end(name: str) -> None:
        async with both[0].writing() as uow:
            if await uow.turns.end(turn(name, name)):
                assert await uow.responses.end("a", completed(name, conversation_id=name))

    async def remove(name: str) -> None:
        async with both[1].writing() as uow:
            await uow.conversations.delete("a", name)

    async def delete_item(name: str, item_id: str) -> None:
        async with both[0].writing() as uow:
            await uow.items.delete("a", name, item_id)

    async def delete_response(name: str) -> None:
        async with both[0].writing() as uow:
            await uow.responses.delete("a", f"old_{name}")

    async def append(name: str) -> None:
        async with both[0].writing() as uow:
            await uow.conversations.append("a", name, messages("i3"), now=NOW, most=MOST)

    work = [
        each
        for name in names
        for each in (
            delete_item(name, "i0"),
            remove(name),
            end(name),
            delete_response(name),
            append(name),
            delete_item(name, "i1"),
        )
    ]
    assert set(await outcomes(work)) <= {"done", "NotFound"}
    left = await contents(database_url)
    left.pop("tenants")
    assert set().union(*left.values()) == set()


async def test_who_is_cancelled_leaves_nothing_open(database: SqlDatabase) -> None:
    """Wherever it happens: connections come back, no transaction stays, and the numbers are whole."""
    await with_items(database)

    async def work(n: int) -> None:
        if n % 2:
            async with database.reading() as uow:
                await uow.conversations.get("a", "conv_1")
                await uow.items.leading("a", "conv_1", 5)
        else:
            async with database.writing() as uow:
                await uow.conversations.append("a", "conv_1", messages(f"i{n}"), now=NOW, most=MOST)

    tasks = [asyncio.create_task(work(n)) for n in range(100)]
    for n, task in enumerate(tasks):
        asyncio.get_running_loop().call_later(0.0005 * n, task.cancel)
    assert set(await outcomes(tasks)) <= {"done", "CancelledError"}
    await asyncio.gather(*(work(n) for n in range(10)))
    numbered = await sequence(database)
    assert [seq for seq, _ in numbered] == list(range(1, len(numbered) + 1))
