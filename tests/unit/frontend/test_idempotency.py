"""Idempotency-Key over the whole application in process: one run, the reply again, and what is not kept."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain import idempotency
from frontend.domain.errors import InProgress, KeyReused, Unavailable
from frontend.domain.idempotency import StoredReply
from frontend.services import process
from frontend.services.idempotency import LEASE_S, IdempotencyService
from tests.fakes.engine import FakeEngine
from tests.support.tenants import Api, Visitor, api_for

KEY = {"idempotency-key": "order-1"}
CHAT = {"model": "hermes-2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
REPLAYED = "idempotent-replayed"
REPLY = StoredReply(status=200, content_type="application/json", body=b"x")


@asynccontextmanager
async def opened(smollm2: Path, database: SqlDatabase, engine: FakeEngine) -> AsyncIterator[Api]:
    async with api_for(engine, smollm2, database) as api:
        yield api


async def chat(client: httpx.AsyncClient, key: str = "order-1", **more: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=CHAT | more, headers={"idempotency-key": key})


def without_date(response: httpx.Response) -> tuple[int, str, bytes]:
    return response.status_code, response.headers["content-type"], response.content


CREATES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"stream": True}),
    ("/v1/chat/completions", CHAT | {"store": True}),
    ("/v1/completions", {"model": "hermes-2", "prompt": "Hi", "max_tokens": 2}),
    ("/v1/responses", {"model": "hermes-2", "input": "Hi", "max_output_tokens": 3}),
    ("/v1/responses", {"model": "hermes-2", "input": "Hi", "max_output_tokens": 3, "stream": True}),
    ("/v1/responses", {"model": "hermes-2", "input": "Hi", "max_output_tokens": 3, "background": True}),
    ("/v1/conversations", {}),
    ("/v1/sessions", {}),
]


@pytest.mark.parametrize(("path", "body"), CREATES)
async def test_the_same_request_gets_the_same_reply(
    smollm2: Path, sqlite_database: SqlDatabase, path: str, body: dict[str, Any]
) -> None:
    """Byte by byte, ids and all, and the engine has worked once."""
    engine = FakeEngine()
    async with opened(smollm2, sqlite_database, engine) as api:
        first = await api.ours.post(path, json=body, headers=KEY)
        runs = len(engine.requests)
        again = [await api.ours.post(path, json=body, headers=KEY) for _ in range(2)]
    assert first.status_code == 200
    assert REPLAYED not in first.headers
    for each in again:
        assert without_date(each) == without_date(first)
        assert each.headers[REPLAYED] == "true"
    assert len(engine.requests) <= max(runs, 1)


async def test_items_of_a_conversation_are_added_once(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """A retry of what has arrived adds nothing."""
    items = {"items": [{"type": "message", "role": "user", "content": "Once"}]}
    async with opened(smollm2, sqlite_database, FakeEngine()) as api:
        made = (await api.ours.post("/v1/conversations", json={})).json()["id"]
        path = f"/v1/conversations/{made}/items"
        replies = [await api.ours.post(path, json=items, headers=KEY) for _ in range(3)]
        kept = (await api.ours.get(path)).json()["data"]
    assert len({each.content for each in replies}) == 1
    assert len(kept) == 1


async def test_many_at_once_are_one_run(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """While the first is worked on, all others are told to come again, and when; afterwards they get its reply."""
    hold = asyncio.Event()
    engine = FakeEngine(hold=hold)
    async with opened(smollm2, sqlite_database, engine) as api, asyncio.timeout(10):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(chat(api.ours)) for _ in range(20)]
            while sum(task.done() for task in tasks) < 19:
                await asyncio.sleep(0.01)
            hold.set()
        replies = [task.result() for task in tasks]
        replay = await chat(api.ours)
    refused = [each for each in replies if each.status_code == 409]
    assert len(refused) == 19
    assert all(each.json()["error"]["code"] == "idempotency_in_progress" for each in refused)
    assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
    (first,) = (each for each in replies if each.status_code == 200)
    assert replay.content == first.content
    assert len(engine.requests) == 1


async def test_another_request_with_the_key_is_refused(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """Another body, path, query or session: 422, whether the first is over or not."""
    hold = asyncio.Event()
    engine = FakeEngine(hold=hold)
    async with opened(smollm2, sqlite_database, engine) as api, asyncio.timeout(10):
        first = asyncio.create_task(chat(api.ours))
        while not engine.running:
            await asyncio.sleep(0.01)
        early = await chat(api.ours, max_tokens=4)
        hold.set()
        assert (await first).status_code == 200
        late = [
            await chat(api.ours, max_tokens=4),
            await api.ours.post("/v1/completions", json=CHAT, headers=KEY),
            await api.ours.post("/v1/chat/completions?x=1", json=CHAT, headers=KEY),
            await api.ours.post("/v1/chat/completions", json=CHAT, headers=KEY | {"x-session-id": "sess_1"}),
        ]
    for each in (early, *late):
        assert (each.status_code, each.json()["error"]["code"]) == (422, "idempotency_key_reused")


async def test_a_key_is_its_tenants(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """The same key of another tenant is another request."""
    engine = FakeEngine()
    async with opened(smollm2, sqlite_database, engine) as api:
        ours, theirs = await chat(api.ours), await chat(api.theirs)
    assert REPLAYED not in theirs.headers
    assert ours.json()["id"] != theirs.json()["id"]
    assert len(engine.requests) == 2


async def test_failures_are_not_kept(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """What was refused, or failed before or in the middle of a stream, may be tried again with the same key."""
    engine = FakeEngine(error=Unavailable("The engine is away."), fail_after=1)
    async with opened(smollm2, sqlite_database, engine) as api:
        assert (await chat(api.ours, max_tokens="many")).status_code == 400
        assert (await chat(api.ours)).status_code == 503
        assert b"engine_unavailable" in (await chat(api.ours, stream=True)).content
        engine._error = None
        replies = [await chat(api.ours, stream=True) for _ in range(2)]
    assert all(each.content.endswith(b"data: [DONE]\n\n") for each in replies)
    assert b"error" not in replies[0].content
    assert [REPLAYED in each.headers for each in replies] == [False, True]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_finds_the_reply_later(
    smollm2: Path, sqlite_database: SqlDatabase, stream: bool
) -> None:
    """A request with a key is finished without its client; the retry gets what it would have got."""
    hold = asyncio.Event()
    engine = FakeEngine(hold=hold)
    async with opened(smollm2, sqlite_database, engine) as api, asyncio.timeout(10):
        visitor = Visitor("/v1/chat/completions", CHAT | {"stream": stream}, headers=KEY)
        visit = asyncio.create_task(visitor.visit(api.app))
        while not engine.running:
            await asyncio.sleep(0.01)
        visitor.left.set()
        await asyncio.sleep(0.05)
        assert engine.running == 1
        body = json.dumps(CHAT | {"stream": stream})  # as the visitor writes it
        headers = KEY | {"content-type": "application/json"}
        assert (await api.ours.post("/v1/chat/completions", content=body, headers=headers)).status_code == 409
        hold.set()
        await visit
        reply = await api.ours.post("/v1/chat/completions", content=body, headers=headers)
    assert reply.headers[REPLAYED] == "true"
    assert len(engine.requests) == 1


async def test_a_reply_that_is_too_large_is_not_made_again(
    smollm2: Path, sqlite_database: SqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told that its request was answered, and with what it cannot be helped."""
    monkeypatch.setattr(idempotency, "LARGEST_BYTES", 100)
    engine = FakeEngine()
    async with opened(smollm2, sqlite_database, engine) as api:
        assert (await chat(api.ours)).status_code == 200
        again = await chat(api.ours)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_reply_too_large")
    assert len(engine.requests) == 1


async def test_a_key_has_a_form(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """1 to 255 visible ASCII characters."""
    async with opened(smollm2, sqlite_database, FakeEngine()) as api:
        for key in ("", " ", "a b", "x" * 256, "é", "tab\t"):
            headers = {b"idempotency-key": key.encode()}
            reply = await api.ours.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_uploads_take_no_key(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """It is said, not ignored; without the header they are as ever."""
    form = {"data": {"purpose": "assistants"}, "files": {"file": ("a.txt", b"text")}}
    async with opened(smollm2, sqlite_database, FakeEngine()) as api:
        refused = await api.ours.post("/v1/files", headers=KEY, **form)  # type: ignore[arg-type]
        accepted = await api.ours.post("/v1/files", **form)  # type: ignore[arg-type]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert accepted.status_code == 200


async def test_reading_takes_no_notice_of_a_key(smollm2: Path, sqlite_database: SqlDatabase) -> None:
    """GET and DELETE can be repeated as they are."""
    async with opened(smollm2, sqlite_database, FakeEngine()) as api:
        made = (await api.ours.post("/v1/conversations", json={})).json()["id"]
        path = f"/v1/conversations/{made}"
        assert [(await api.ours.get(path, headers=KEY)).status_code for _ in range(2)] == [200, 200]
        assert (await api.ours.delete(path, headers=KEY)).status_code == 200
        assert (await api.ours.delete(path, headers=KEY)).status_code == 404


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_what_a_dead_process_has_begun_is_taken_over(sqlite_database: SqlDatabase) -> None:
    """At once where it is known to be dead, else when its lease is over; a lease that is renewed goes on."""
    clock = Clock()
    elsewhere, here = (
        IdempotencyService(sqlite_database, owner=f"{name}/1/2", clock=clock) for name in ("far", "near")
    )
    assert await elsewhere.begin("ours", "key", b"print") is None
    with pytest.raises(InProgress):
        await here.begin("ours", "key", b"print")
    clock.now += LEASE_S - 1
    await elsewhere.renew()
    clock.now += 2
    with pytest.raises(InProgress):
        await here.begin("ours", "key", b"print")
    clock.now += LEASE_S
    with pytest.raises(KeyReused):
        await here.begin("ours", "key", b"other")
    assert await here.begin("ours", "key", b"print") is None
    await elsewhere.answer("ours", "key", REPLY)
    with pytest.raises(InProgress):
        await here.begin("ours", "key", b"print")
    await here.answer("ours", "key", REPLY)
    assert await elsewhere.begin("ours", "key", b"print") == REPLY

    place = process.this_process().rsplit("/", 2)[0]
    dead = IdempotencyService(sqlite_database, owner=f"{place}/1/0", clock=clock)
    assert await dead.begin("ours", "dead", b"print") is None
    assert await here.begin("ours", "dead", b"print") is None


async def test_leases_are_renewed_while_it_runs(sqlite_database: SqlDatabase) -> None:
    """A generation may take many times as long as a lease; a failed renewal does not end the renewals."""
    clock, rounds = Clock(), itertools.count()
    woken = asyncio.Event()

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        if next(rounds) == 10:
            woken.set()
            await asyncio.get_running_loop().create_future()

    ours = IdempotencyService(sqlite_database, owner="near/1/2", clock=clock, sleep=sleep)
    theirs = IdempotencyService(sqlite_database, owner="far/1/2", clock=clock)
    assert await ours.begin("ours", "key", b"print") is None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ours.running())
        await woken.wait()
        with pytest.raises(InProgress):
            await theirs.begin("ours", "key", b"print")
