"""Responses, their chains and their events, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.conversations import PageRequest
from frontend.domain.errors import InvalidRequest, NotFound
from frontend.domain.generation import Usage
from frontend.domain.responses import ResponseError, ResponseEvent, StatusChanged
from frontend.domain.storage import UnitOfWork
from tests.support.database import contents, counted
from tests.support.records import (
    EVERYTHING,
    ITEMS,
    MOST,
    NOW,
    completed,
    deltas,
    messages,
    response,
    sequence,
    with_items,
)


async def test_a_response_comes_back_as_it_was(database: SqlDatabase) -> None:
    """When it was made, and when it has ended: with every field, and its output."""
    begun = response(status="queued", parameters=b'{"t": 1}', previous_response_id="resp_0", background=True, dropped=3)
    ended = msgspec.structs.replace(
        begun,
        status="incomplete",
        completed_at=NOW + 7,
        dropped=5,
        incomplete_reason="max_output_tokens",
        usage=Usage(10, 20, 5),
        output=ITEMS,
    )
    async with database.writing() as uow:
        await uow.responses.add("a", begun, messages("in"))
        assert msgspec.structs.replace(await uow.responses.get("a", "resp_1"), output=()) == begun
        assert await uow.responses.start("a", "resp_1")
        assert not await uow.responses.start("a", "resp_1")
        assert (await uow.responses.get("a", "resp_1")).status == "in_progress"
        assert await uow.responses.end("a", ended)
        assert await uow.responses.get("a", "resp_1") == ended
        assert not await uow.responses.start("a", "resp_1")
        assert not await uow.responses.end("a", completed())
        assert await uow.responses.get("a", "resp_1") == ended


async def test_a_failed_response_tells_why(database: SqlDatabase) -> None:
    """And keeps what had been made until then."""
    error = ResponseError("server_error", "It broke.")
    failed = completed(status="failed", error=error, output=messages("out"))
    async with database.writing() as uow:
        await uow.responses.add("a", response(), messages("in"))
        assert await uow.responses.end("a", failed)
        assert await uow.responses.get("a", "resp_1") == failed


async def test_an_unknown_response_is_not_found(database: SqlDatabase) -> None:
    """By any method but its end: what is gone has ended."""
    async with database.writing() as uow:
        assert not await uow.responses.end("a", completed("resp_0"))
    calls: list[Callable[[UnitOfWork], Awaitable[object]]] = [
        lambda uow: uow.responses.get("a", "resp_0"),
        lambda uow: uow.responses.start("a", "resp_0"),
        lambda uow: uow.responses.input_page("a", "resp_0", EVERYTHING),
        lambda uow: uow.responses.chain("a", "resp_0"),
        lambda uow: uow.responses.delete("a", "resp_0"),
        lambda uow: uow.responses.add_events("a", "resp_0", deltas(0, 1)),
        lambda uow: uow.responses.events("a", "resp_0", -1),
        lambda uow: uow.responses.add("a", response(conversation_id="conv_0"), ()),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            async with database.writing() as uow:
                await call(uow)


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
async def test_a_turns_items_join_their_conversation_when_it_has_succeeded(database: SqlDatabase, status: str) -> None:
    """Input first, with the next numbers; what fails or is cancelled leaves the conversation as it was."""
    await with_items(database, "i1")
    ended = completed(status=status, conversation_id="conv_1", output=messages("out1", "out2"))
    async with database.writing() as uow:
        await uow.responses.add("a", response(conversation_id="conv_1"), messages("in1", "in2"))
        await uow.conversations.append("a", "conv_1", messages("between"), now=NOW, most=MOST)
    assert await sequence(database) == [(1, "i1"), (2, "between")]
    async with database.writing() as uow:
        before = await uow.conversations.get("a", "conv_1")
        assert await uow.responses.end("a", ended)
        after = await uow.conversations.get("a", "conv_1")
        stored = await uow.items.behind("a", "conv_1", 2)
        assert (await uow.responses.get("a", "resp_1")).output == ended.output
    if status in ("failed", "cancelled"):
        assert (after, stored) == (before, [])
    else:
        assert [(each.seq, each.item.id) for each in stored] == [(3, "in1"), (4, "in2"), (5, "out1"), (6, "out2")]
        assert {each.response_id for each in stored} == {"resp_1"}
        assert [each.created_at for each in stored] == [NOW, NOW, NOW + 5, NOW + 5]
        assert (after.head, after.version, after.last_active_at) == (6, before.version + 1, NOW + 5)


async def test_a_responses_input_is_paged(database: SqlDatabase) -> None:
    """By position, or by the numbers in its conversation; its output is not among it."""
    await with_items(database, "i1")
    async with database.writing() as uow:
        for name, where in (("alone", None), ("within", "conv_1")):
            await uow.responses.add("a", response(name, conversation_id=where), messages("z", "y", "x"))
            await uow.responses.end("a", completed(name, conversation_id=where, output=messages("out")))
    async with database.reading() as uow:
        first = await uow.responses.input_page("a", "alone", PageRequest(limit=2, order="asc"))
        assert ([(each.seq, each.item.id) for each in first.data], first.has_more) == ([(1, "z"), (2, "y")], True)
        rest = await uow.responses.input_page("a", "alone", PageRequest(after="y", limit=2, order="asc"))
        assert ([(each.seq, each.item.id) for each in rest.data], rest.has_more) == ([(3, "x")], False)
        within = await uow.responses.input_page("a", "within", PageRequest(limit=9, order="desc"))
        assert [(each.seq, each.item.id) for each in within.data] == [(4, "x"), (3, "y"), (2, "z")]
        with pytest.raises(InvalidRequest):
            await uow.responses.input_page("a", "alone", PageRequest(after="out", limit=2, order="asc"))


async def test_a_chain_of_200_is_one_query(database: SqlDatabase) -> None:
    """Input and output of each response, oldest first, numbered from its beginning."""
    async with database.writing() as uow:
        for n in range(200):
            name, previous = f"r{n}", f"r{n - 1}" if n else None
            await uow.responses.add("a", response(name, previous_response_id=previous), messages(f"in{n}"))
            status = "incomplete" if n % 2 else "completed"
            output = messages(f"out{n}") if n != 100 else []
            await uow.responses.end("a", completed(name, status=status, output=output))
    async with database.reading() as uow:
        with counted() as statements:
            chain = await uow.responses.chain("a", "r199")
        assert len(statements) == 1
        expected = [f"{kind}{n}" for n in range(200) for kind in ("in", "out") if (kind, n) != ("out", 100)]
        assert [each.item.id for each in chain] == expected
        assert [each.seq for each in chain] == list(range(1, 400))
        assert (chain[0].response_id, chain[-1].response_id) == ("r0", "r199")
        assert len(await uow.responses.chain("a", "r0")) == 2


async def test_a_chain_needs_all_its_links(database: SqlDatabase) -> None:
    """One that is gone, or that did not succeed, and there is none."""
    async with database.writing() as uow:
        await uow.responses.add("a", response("r1"), messages("i1"))
        await uow.responses.add("a", response("r2", previous_response_id="r1"), ())
        with pytest.raises(NotFound):
            await uow.responses.chain("a", "r1")
        await uow.responses.end("a", completed("r1"))
        await uow.responses.end("a", completed("r2"))
        assert [each.item.id for each in await uow.responses.chain("a", "r2")] == ["i1"]
        await uow.responses.add("a", response("r3", previous_response_id="r2"), messages("i3"))
        await uow.responses.end("a", completed("r3", status="cancelled"))
        with pytest.raises(NotFound):
            await uow.responses.chain("a", "r3")
        await uow.responses.delete("a", "r1")
        with pytest.raises(NotFound):
            await uow.responses.chain("a", "r2")


async def test_a_conversations_response_has_a_chain_of_its_own(database: SqlDatabase) -> None:
    """Its own input and output, not what stood before in the conversation."""
    await with_items(database, "i1")
    async with database.writing() as uow:
        await uow.responses.add("a", response(conversation_id="conv_1"), messages("in"))
        await uow.responses.end("a", completed(conversation_id="conv_1", output=messages("out")))
        chain = await uow.responses.chain("a", "resp_1")
    assert [(each.seq, each.item.id) for each in chain] == [(1, "in"), (2, "out")]


async def test_a_deleted_response_leaves_its_conversation_alone(database: SqlDatabase, database_url: str) -> None:
    """Items that are a conversation's stay, without the response; the others go, and the events."""
    await with_items(database)
    async with database.writing() as uow:
        for name, where in (("alone", None), ("within", "conv_1")):
            await uow.responses.add("a", response(name, conversation_id=where), messages(f"in_{name}"))
            await uow.responses.end("a", completed(name, conversation_id=where, output=messages(f"out_{name}")))
            await uow.responses.add_events("a", name, deltas(0, 3))
            await uow.responses.delete("a", name)
        stored = await uow.items.behind("a", "conv_1", 0)
        assert [(each.item.id, each.response_id) for each in stored] == [("in_within", None), ("out_within", None)]
    left = await contents(database_url)
    assert (len(left["items"]), left["responses"], left["response_events"]) == (2, set(), set())


async def test_events_come_back_in_order(database: SqlDatabase) -> None:
    """From any number on, whatever batches they came in, large ones compressed."""
    changed = StatusChanged(n=0, name="created", response=response(output=ITEMS))
    events: list[ResponseEvent] = [changed, *deltas(1, 2), *deltas(3, 500, "many words " * 3)]
    async with database.writing() as uow:
        await uow.responses.add("a", response(), ())
        assert await uow.responses.events("a", "resp_1", -1) == []
        await uow.responses.add_events("a", "resp_1", [])
        for batch in (events[:1], events[1:3], events[3:]):
            await uow.responses.add_events("a", "resp_1", batch)
    async with database.reading() as uow:
        assert [event.n for event in await uow.responses.events("a", "resp_1", -1)] == list(range(501))
        first, *others = await uow.responses.events("a", "resp_1", -1)
        assert others == events[1:]
        assert isinstance(first, StatusChanged)
        assert first.response.output == ITEMS
        assert await uow.responses.events("a", "resp_1", 400) == events[401:]
        assert await uow.responses.events("a", "resp_1", 500) == []


async def test_events_are_kept_for_a_while(database: SqlDatabase, database_url: str) -> None:
    """Those of responses that ended before are deleted, of all tenants, in steps; the others and the records stay."""
    async with database.writing() as uow:
        for tenant, name, ended_at in (("a", "r1", 10), ("b", "r1", 20), ("a", "r2", 30), ("a", "r3", None)):
            await uow.responses.add(tenant, response(name), ())
            await uow.responses.add_events(tenant, name, deltas(0, 5))
            await uow.responses.add_events(tenant, name, deltas(6, 9))
            if ended_at:
                await uow.responses.end(tenant, completed(name, completed_at=ended_at))
        await uow.responses.add("a", completed("r4", completed_at=1), ())
        assert [await uow.responses.delete_events(21, 1) for _ in range(3)] == [1, 1, 0]
    async with database.reading() as uow:
        assert await uow.responses.events("a", "r1", -1) == await uow.responses.events("b", "r1", -1) == []
        assert len(await uow.responses.events("a", "r2", -1)) == len(await uow.responses.events("a", "r3", -1)) == 10
    assert len((await contents(database_url))["responses"]) == 5
