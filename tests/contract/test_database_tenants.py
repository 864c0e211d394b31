"""What belongs to another tenant does not exist: every method answers as it does for an id that nobody has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from frontend.db.database import SqlDatabase
from frontend.domain.conversations import PageRequest, Trim
from frontend.domain.documents import Chunking, Comparison, IngestError, IngestJob
from frontend.domain.errors import ServiceError
from frontend.domain.idempotency import StoredReply
from frontend.domain.storage import UnitOfWork
from tests.support.database import contents
from tests.support.documents import (
    MOST_BYTES,
    PIN,
    add_files,
    add_store,
    batch,
    chunks,
    claim,
    file,
    memory,
    publish,
    put_in,
    store,
    store_file,
    vectors,
)
from tests.support.records import (
    EVERYTHING,
    MOST,
    NOW,
    api_key,
    completed,
    completion,
    conversation,
    deltas,
    idempotency_record,
    messages,
    response,
    session,
    turn,
    with_items,
)

REPLY = StoredReply(status=200, content_type="application/json", body=b"{}")
Call = Callable[[UnitOfWork, str], Awaitable[object]]


def behind(item_id: str) -> PageRequest:
    return PageRequest(after=item_id, limit=5, order="asc")


CALLS: dict[str, Call] = {
    "conversations.get": lambda u, x: u.conversations.get("b", x),
    "conversations.page": lambda u, x: u.conversations.page("b", behind(x), {}, NOW),
    "conversations.hold": lambda u, x: u.conversations.hold("b", x),
    "conversations.update": lambda u, x: u.conversations.update("b", conversation(x, metadata={"mine": "1"})),
    "conversations.set_trim": lambda u, x: u.conversations.set_trim("b", x, Trim(), Trim(upto=1)),
    "conversations.append": lambda u, x: u.conversations.append("b", x, messages("new"), now=NOW, most=MOST),
    "conversations.delete": lambda u, x: u.conversations.delete("b", x),
    "items.behind": lambda u, x: u.items.behind("b", x, 0),
    "items.between": lambda u, x: u.items.between("b", x, after=0, upto=9, most=5),
    "items.leading": lambda u, x: u.items.leading("b", x, 5),
    "items.page": lambda u, x: u.items.page("b", x, EVERYTHING),
    "items.page, cursor": lambda u, x: u.items.page("b", "own", behind(x)),
    "items.get, conversation": lambda u, x: u.items.get("b", x, x),
    "items.get": lambda u, x: u.items.get("b", "own", x),
    "items.find": lambda u, x: u.items.find("b", [x]),
    "items.delete, conversation": lambda u, x: u.items.delete("b", x, x),
    "items.delete": lambda u, x: u.items.delete("b", "own", x),
    "responses.add, conversation": lambda u, x: u.responses.add("b", response("new", conversation_id=x), ()),
    "responses.get": lambda u, x: u.responses.get("b", x),
    "responses.start": lambda u, x: u.responses.start("b", x),
    "responses.end": lambda u, x: u.responses.end("b", completed(x)),
    "responses.input_page": lambda u, x: u.responses.input_page("b", x, EVERYTHING),
    "responses.input_page, cursor": lambda u, x: u.responses.input_page("b", "own", behind(x)),
    "responses.chain": lambda u, x: u.responses.chain("b", x),
    "responses.chain, previous": lambda u, x: chained(u, x),
    "responses.delete": lambda u, x: u.responses.delete("b", x),
    "responses.add_events": lambda u, x: u.responses.add_events("b", x, deltas(0, 1)),
    "responses.events": lambda u, x: u.responses.events("b", x, -1),
    "turns.begin": lambda u, x: u.turns.begin(turn("new", x, tenant="b"), NOW),
    "turns.end": lambda u, x: u.turns.end(turn(x, x, tenant="b")),
    "turns.end_orphan": lambda u, x: u.turns.end_orphan(turn(x, x, tenant="b")),
    "sessions.add, conversation": lambda u, x: u.sessions.add("b", session("new", x), MOST),
    "sessions.get": lambda u, x: u.sessions.get("b", x),
    "sessions.touch": lambda u, x: u.sessions.touch("b", x, NOW + 1),
    "sessions.delete": lambda u, x: u.sessions.delete("b", x),
    "completions.get": lambda u, x: u.completions.get("b", x),
    "completions.page": lambda u, x: u.completions.page("b", behind(x), model=None, metadata={}),
    "completions.set_metadata": lambda u, x: u.completions.set_metadata("b", x, {}, b"{}"),
    "completions.delete": lambda u, x: u.completions.delete("b", x),
    "keys.hold": lambda u, x: u.keys.hold("b", x),
    "keys.end": lambda u, x: u.keys.end("b", x, revoked_at=NOW),
    "keys.page": lambda u, x: u.keys.page("b", behind(x)),
    "idempotency.claim": lambda u, x: u.idempotency.claim("b", idempotency_record(key=x), NOW),
    "idempotency.take_over": lambda u, x: taken_over(u, x),
    "idempotency.answer": lambda u, x: u.idempotency.answer("b", x, "process 1", REPLY),
    "idempotency.give_up": lambda u, x: u.idempotency.give_up("b", x, "process 1"),
    "files.add_piece": lambda u, x: u.files.add_piece("b", x, 9, b""),
    "files.publish": lambda u, x: u.files.publish("b", x, 1, most_bytes=MOST_BYTES),
    "files.get": lambda u, x: u.files.get("b", x),
    "files.find": lambda u, x: u.files.find("b", [x]),
    "files.page": lambda u, x: u.files.page("b", behind(x), None),
    "files.piece": lambda u, x: u.files.piece("b", x, 0),
    "files.delete": lambda u, x: u.files.delete("b", x),
    "vector_stores.add, conversation": lambda u, x: u.vector_stores.add("b", memory("new", x), MOST),
    "vector_stores.get": lambda u, x: u.vector_stores.get("b", x),
    "vector_stores.memory": lambda u, x: u.vector_stores.memory("b", x),
    "vector_stores.delete_memory": lambda u, x: u.vector_stores.delete_memory("b", x),
    "vector_stores.page": lambda u, x: u.vector_stores.page("b", behind(x)),
    "vector_stores.update": lambda u, x: u.vector_stores.update("b", store(x, name="mine")),
    "vector_stores.touch": lambda u, x: u.vector_stores.touch("b", x, NOW + 1),
    "vector_stores.delete": lambda u, x: u.vector_stores.delete("b", x),
    "store_files.add": lambda u, x: put(u, x, "own"),
    "store_files.add, file": lambda u, x: put(u, "own", x),
    "store_files.get": lambda u, x: u.store_files.get("b", x, x),
    "store_files.get, file": lambda u, x: u.store_files.get("b", "own", x),
    "store_files.page": lambda u, x: u.store_files.page("b", x, EVERYTHING, status=None, batch_id=None),
    "store_files.page, batch": lambda u, x: u.store_files.page("b", "own", EVERYTHING, status=None, batch_id=x),
    "store_files.page, cursor": lambda u, x: u.store_files.page("b", "own", behind(x), status=None, batch_id=None),
    "store_files.set_attributes": lambda u, x: u.store_files.set_attributes("b", x, x, {"mine": True}),
    "store_files.remove": lambda u, x: u.store_files.remove("b", x, x),
    "store_files.release": lambda u, x: u.store_files.release(job_of(x)),
    "store_files.publish": lambda u, x: u.store_files.publish(job_of(x), chunks("mine"), 1),
    "store_files.fail": lambda u, x: u.store_files.fail(job_of(x), IngestError("server_error", "mine")),
    "file_batches.add, store": lambda u, x: u.file_batches.add("b", batch("new", x)),
    "file_batches.get": lambda u, x: u.file_batches.get("b", x, x),
    "file_batches.get, batch": lambda u, x: u.file_batches.get("b", "own", x),
    "file_batches.cancel": lambda u, x: u.file_batches.cancel("b", x, x),
    "file_batches.cancel, batch": lambda u, x: u.file_batches.cancel("b", "own", x),
    "chunks.delta": lambda u, x: u.chunks.delta("b", store(x, head=5), 0, 5),
    "chunks.append": lambda u, x: u.chunks.append("b", x, chunks("mine")),
    "chunks.read": lambda u, x: u.chunks.read("b", x, [1, 2]),
    "chunks.of_file": lambda u, x: u.chunks.of_file("b", x, x, 0, 5),
    "chunks.allowed": lambda u, x: u.chunks.allowed("b", x, Comparison("ne", "k", "v")),
    "chunks.vacuum": lambda u, x: u.chunks.vacuum("b", x, 0),
    "chunks.replace_vectors": lambda u, x: u.chunks.replace_vectors("b", x, 1, {1: vectors()}),
    "chunks.swap": lambda u, x: u.chunks.swap("b", x, 1, PIN),
}
"""Each by tenant b, with an id that is all of a conversation, an item, a response, a session, a turn, a completion, a file,
a vector store, a batch, an API key and an Idempotency-Key of a."""


async def put(uow: UnitOfWork, store_id: str, file_id: str) -> None:
    await uow.store_files.add("b", store_id, [store_file(file_id, store_id)], most=MOST, most_waiting=MOST)


def job_of(resource_id: str) -> IngestJob:
    """What tenant b would have to be given, for one of tenant a's; with the ticket that `fill` has drawn."""
    return IngestJob(
        tenant="b",
        store_id=resource_id,
        file=file(resource_id),
        chunking=Chunking(),
        embedding=PIN,
        attempt=1,
        owner="process 1",
        ticket=tickets[0],
    )


tickets = [0]


async def chained(uow: UnitOfWork, previous: str) -> object:
    await uow.responses.add("b", response("next", previous_response_id=previous), ())
    await uow.responses.end("b", completed("next"))
    return await uow.responses.chain("b", "next")


async def taken_over(uow: UnitOfWork, key: str) -> object:
    record = idempotency_record(key=key)
    return await uow.idempotency.take_over("b", record, record)


async def fill(database: SqlDatabase) -> None:
    """Tenant a has one of everything, called "theirs"; tenant b has a conversation and a response, called "own"."""
    async with database.writing() as uow:
        await uow.conversations.add("a", conversation("theirs"), MOST)
        await uow.conversations.append("a", "theirs", messages("theirs"), now=NOW, most=MOST)
        await uow.sessions.add("a", session("theirs", "theirs"), MOST)
        await uow.turns.begin(turn("theirs", "theirs"), NOW)
        await uow.responses.add("a", response("theirs"), messages("theirs"))
        await uow.responses.add_events("a", "theirs", deltas(0, 3))
        await uow.responses.end("a", completed("theirs"))
        await uow.completions.add("a", completion("theirs"))
        await uow.keys.ensure_tenant("a", NOW)
        await uow.keys.add("a", api_key("theirs"))
        await uow.idempotency.claim("a", idempotency_record(key="theirs"), NOW)
        await uow.conversations.add("b", conversation("own"), MOST)
        await uow.responses.add("b", response("own"), messages("mine"))
    await fill_stores(database)


async def fill_stores(database: SqlDatabase) -> None:
    """Each tenant has a file in a store; that of tenant a is on its way once more, and there was a removal."""
    for tenant, name in (("a", "theirs"), ("b", "own")):
        await add_files(database, name, tenant=tenant)
        await add_store(database, name, tenant)
        async with database.writing() as uow:
            await uow.file_batches.add(tenant, batch(name, name))
    await put_in(database, "theirs", store_id="theirs", batch_id="theirs")
    (job,) = await claim(database)
    assert await publish(database, job, chunks("secret"))
    await put_in(database, "theirs", store_id="theirs", batch_id="theirs")
    (job,) = await claim(database)
    tickets[0] = job.ticket
    async with database.writing() as uow:
        await uow.vector_stores.add("a", memory("memory", "theirs"), MOST)


async def answer(database: SqlDatabase, call: Call, resource_id: str) -> Any:
    """What came back, or was raised, with no id in it; what it did is taken back."""

    class TakeBack(Exception):
        pass

    try:
        async with database.writing() as uow:
            told = repr(await call(uow, resource_id))
            raise TakeBack
    except TakeBack:
        return told
    except ServiceError as exc:
        return type(exc).__name__, exc.message.replace(resource_id, "…"), exc.code, exc.param


async def test_a_foreign_id_answers_like_an_unknown_one(database: SqlDatabase, database_url: str) -> None:
    """Every method that takes an id, with one and with the other; and nothing of the other tenant has changed."""
    await fill(database)
    before = await contents(database_url)
    for name, call in CALLS.items():
        assert await answer(database, call, "theirs") == await answer(database, call, "nobody"), name
    assert await contents(database_url) == before


async def test_every_method_of_a_tenant_was_asked(database: SqlDatabase) -> None:
    """None is forgotten when the port grows: all but those that only make something new, or are of all tenants."""
    new_or_of_all = {
        *("conversations.add", "conversations.delete_expired", "sessions.delete_expired", "responses.delete_events"),
        *("completions.add", "turns.renew", "turns.running", "keys.add", "keys.find", "keys.ensure_tenant"),
        *("files.begin", "files.delete_expired", "vector_stores.delete_expired", "vector_stores.outdated"),
        *("keys.touch", "audit.add", "audit.page", "idempotency.renew", "idempotency.delete_expired"),
        *("store_files.claim", "store_files.renew", "store_files.owners", "store_files.release_all"),
    }
    async with database.reading() as uow:
        methods = {
            f"{noun}.{method}"
            for noun, repository in vars(uow).items()
            for method in dir(repository)
            if not method.startswith("_")
        }
    assert methods == {name.split(",")[0] for name in CALLS} | new_or_of_all


async def test_lists_hold_ones_own(database: SqlDatabase) -> None:
    """And ids may be the same: each tenant has its own."""
    await fill(database)
    async with database.writing() as uow:
        await uow.conversations.add("b", conversation("theirs", metadata={"whose": "b"}), MOST)
        await uow.completions.add("b", completion("theirs"))
        await uow.conversations.append("b", "theirs", messages("x"), now=NOW, most=MOST)
        await uow.conversations.delete("a", "theirs")
    async with database.reading() as uow:
        assert [each.id for each in (await uow.conversations.page("b", EVERYTHING, {}, NOW)).data] == ["own", "theirs"]
        assert (await uow.conversations.page("a", EVERYTHING, {}, NOW)).data == []
        assert [each.item.id for each in await uow.items.behind("b", "theirs", 0)] == ["x"]
        for tenant in "ab":
            page = await uow.completions.page(tenant, EVERYTHING, model=None, metadata={})
            assert [each.id for each in page.data] == ["theirs"]


async def test_a_foreign_key_cannot_cross_tenants(database: SqlDatabase) -> None:
    """The database itself holds them apart, even if a repository forgot."""
    await with_items(database)
    calls: list[Callable[[UnitOfWork], Awaitable[object]]] = [
        lambda u: u.sessions.add("b", session(), MOST),
        lambda u: u.turns.begin(turn(tenant="b"), NOW),
        lambda u: u.responses.add("b", response(conversation_id="conv_1"), ()),
        lambda u: u.vector_stores.add("b", memory(), MOST),
    ]
    for call in calls:
        with pytest.raises(ServiceError, match="does not exist"):
            async with database.writing() as uow:
                await call(uow)
