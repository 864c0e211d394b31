"""The gate on the whole frontend: who passes it, what is taken there, what is given back, and what a refusal leaves behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from frontend.domain.errors import InvalidRequest, RateLimited, Unavailable
from frontend.domain.limits import Account, Grant
from frontend.domain.storage import Database
from frontend.services.generate import cache_salt
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.engine import FakeEngine
from tests.fakes.limiter import FakeLimiter
from tests.support.app import PEPPER, client_for
from tests.support.tenants import OURS, THEIRS, Api, Visitor, api_for

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
BODIES: Mapping[str, dict[str, object]] = {
    CHAT: {"model": "hermes-2", "messages": MESSAGES, "max_tokens": 4},
    "/v1/completions": {"model": "hermes-2", "prompt": ["Paris is", "Rome is"], "max_tokens": 4, "n": 2},
    RESPONSES: {"model": "hermes-2", "input": "Hello.", "max_output_tokens": 4},
    "/v1/responses/compact": {"model": "hermes-2", "input": "Hello."},
    "/v1/embeddings": {"model": "all-MiniLM-L6-v2", "input": "hello"},
}
"""Of each route that passes the gate itself."""


class Limits(FakeLimiter):
    """Refuses what comes while `closed`."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    async def acquire(self, account: Account, tokens: int, *, lease: bool) -> Grant:
        await asyncio.sleep(0)
        if self.closed:
            raise RateLimited("Too many requests.", "requests", retry_after_s=2.5)
        return await super().acquire(account, tokens, lease=lease)

    async def settle(self, grant: Grant, tokens: int, *, refund_request: bool = False) -> None:
        await asyncio.sleep(0)
        await super().settle(grant, tokens, refund_request=refund_request)


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def http(engine: FakeEngine, limits: Limits, smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(engine, smollm2, embedder=FakeEmbedder(), limiter=limits) as connected:
        yield connected


@pytest.fixture
async def narrow(engine: FakeEngine, smollm2: Path, sqlite_database: Database) -> AsyncIterator[Api]:
    """Two tenants before one slot, and nobody may wait."""
    async with api_for(engine, smollm2, sqlite_database, ADMISSION_SLOTS="1", ADMISSION_MAX_WAITING="0") as connected:
        yield connected


def application(http: httpx.AsyncClient) -> Litestar:
    return cast(Litestar, cast(Any, http._transport).app._app)


def handlers(app: Litestar) -> list[tuple[str, str, HTTPRouteHandler]]:
    return [
        (method, route.path_format, handler)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
    ]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def in_engine(engine: FakeEngine, count: int) -> None:
    await until(lambda: len(engine.requests) >= count)


class TestEveryRoute:
    async def test_those_that_generate_pass_the_gate_once(self, http: httpx.AsyncClient, limits: Limits) -> None:
        """Taken from the application's own table: a new route of this kind needs a body here."""
        app = application(http)
        gated = {path for _, path, handler in handlers(app) if handler.opt.get("gated")}
        assert gated == set(BODIES)
        for path, body in BODIES.items():
            limits.acquired.clear()
            reply = await http.post(path, json=body)
            assert reply.status_code == 200, reply.text
            taken = [tokens > 0 for _, tokens in limits.acquired]
            assert taken == [True], path

    async def test_all_others_are_counted_once_and_the_public_ones_never(
        self, http: httpx.AsyncClient, limits: Limits
    ) -> None:
        """Whatever they answer."""
        for method, path, handler in handlers(application(http)):
            if handler.opt.get("gated"):
                continue
            limits.acquired.clear()
            await http.request(method, re.sub(r"\{[^}]*\}", "none", path))
            counted = [tokens for _, tokens in limits.acquired]
            assert counted == ([] if handler.opt.get("public") else [0]), (method, path)

    @pytest.mark.parametrize("path", BODIES)
    async def test_a_used_up_share_is_a_429_before_anything_is_done(
        self, http: httpx.AsyncClient, limits: Limits, engine: FakeEngine, path: str
    ) -> None:
        """Also where a stream was asked for, or the background."""
        limits.closed = True
        for more in ({}, {"stream": True}, {"background": True}):
            if more and (path.endswith(("compact", "embeddings")) or ("background" in more and path != RESPONSES)):
                continue
            reply = await http.post(path, json=BODIES[path] | more)
            assert (reply.status_code, reply.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert reply.headers["retry-after-ms"] == "2500"
        assert not engine.requests


class TestShares:
    async def test_the_most_is_taken_and_what_was_not_used_given_back(
        self, http: httpx.AsyncClient, engine: FakeEngine, limits: Limits
    ) -> None:
        """Prompt and max_tokens of each choice first; prompt and answers in the end."""
        engine._says = ["Paris", "."]
        usage = (await http.post(CHAT, json=BODIES[CHAT] | {"n": 3})).json()["usage"]
        ((_, taken),) = limits.acquired
        ((_, settled, refund),) = limits.settled
        assert taken == usage["prompt_tokens"] + 3 * 4
        assert (settled, refund) == (usage["total_tokens"], False)
        assert usage["completion_tokens"] == 3 * 2

    async def test_prompts_of_one_completion_are_one_request(self, http: httpx.AsyncClient, limits: Limits) -> None:
        """Two prompts of two choices each."""
        usage = (await http.post("/v1/completions", json=BODIES["/v1/completions"])).json()["usage"]
        ((_, taken),) = limits.acquired
        assert taken == usage["prompt_tokens"] + 2 * 2 * 4
        assert [settled for _, settled, _ in limits.settled] == [usage["total_tokens"]]

    async def test_embeddings_take_what_they_read(self, http: httpx.AsyncClient, limits: Limits) -> None:
        """Their tokens, and nothing to settle."""
        usage = (await http.post("/v1/embeddings", json=BODIES["/v1/embeddings"])).json()["usage"]
        assert [tokens for _, tokens in limits.acquired] == [usage["prompt_tokens"]]
        assert not limits.settled

    async def test_what_the_service_could_not_do_costs_nothing(self, limits: Limits, smollm2: Path) -> None:
        """Not even the request; embeddings too."""
        broken, embedder = FakeEngine(error=Unavailable("Away.")), FakeEmbedder(error=Unavailable("Away."))
        async with client_for(broken, smollm2, embedder=embedder, limiter=limits) as http:
            for path in BODIES:
                assert (await http.post(path, json=BODIES[path])).status_code == 503
        assert [(tokens, refund) for _, tokens, refund in limits.settled] == [(0, True)] * len(BODIES)

    async def test_a_failure_behind_the_first_token_costs_what_there_was(self, limits: Limits, smollm2: Path) -> None:
        """Prompt and three tokens."""
        async with client_for(FakeEngine(error=Unavailable("Away."), fail_after=3), smollm2, limiter=limits) as http:
            await http.post(CHAT, json=BODIES[CHAT] | {"stream": True})
        ((grant, settled, refund),) = limits.settled
        assert (settled, refund) == (grant.tokens - 4 + 3, False)

    async def test_what_the_client_did_wrong_counts_as_a_request(self, limits: Limits, smollm2: Path) -> None:
        """Found by the engine: no tokens, but the request."""
        async with client_for(FakeEngine(error=InvalidRequest("No.")), smollm2, limiter=limits) as http:
            assert (await http.post(CHAT, json=BODIES[CHAT])).status_code == 400
        assert [(tokens, refund) for _, tokens, refund in limits.settled] == [(0, False)]

    async def test_a_client_that_leaves_has_used_what_it_was_told(self, limits: Limits, smollm2: Path) -> None:
        """Two of four tokens; the share is settled though nobody waits for it."""
        engine = FakeEngine(hold=asyncio.Event())
        async with client_for(engine, smollm2, limiter=limits) as http:
            visitor = Visitor(CHAT, BODIES[CHAT] | {"stream": True}, key=http.headers["authorization"].split()[1])
            visit = asyncio.create_task(visitor.visit(cast(Any, http._transport).app))
            await in_engine(engine, 1)
            visitor.left.set()
            await visit
            await until(lambda: limits.settled)
            ((grant, settled, refund),) = limits.settled
            assert (settled, refund) == (grant.tokens - 4, False)
            assert engine.running == 0

    async def test_a_share_that_nobody_waits_for_any_more_is_given_back(self, smollm2: Path) -> None:
        """The client leaves while the limiter is being asked."""
        asked, answer, limits = asyncio.Event(), asyncio.Event(), Limits()

        class Slow(Limits):
            async def acquire(self, account: Account, tokens: int, *, lease: bool) -> Grant:
                asked.set()
                await answer.wait()
                return await limits.acquire(account, tokens, lease=lease)

            async def settle(self, grant: Grant, tokens: int, *, refund_request: bool = False) -> None:
                await limits.settle(grant, tokens, refund_request=refund_request)

        async with client_for(FakeEngine(), smollm2, limiter=Slow()) as http:
            visitor = Visitor(CHAT, BODIES[CHAT], key=http.headers["authorization"].split()[1])
            visit = asyncio.create_task(visitor.visit(cast(Any, http._transport).app))
            await asked.wait()
            visitor.left.set()
            await visit
            answer.set()
            await until(lambda: limits.settled)
        assert [(tokens, refund) for _, tokens, refund in limits.settled] == [(0, False)]


class TestCapacity:
    async def test_one_too_many_is_a_503_with_its_time(self, narrow: Api, engine: FakeEngine) -> None:
        """Of every route that generates, streamed or not, while another tenant holds the slot."""
        engine._hold = asyncio.Event()
        running = asyncio.create_task(narrow.theirs.post(CHAT, json=BODIES[CHAT]))
        await in_engine(engine, 1)
        for path in set(BODIES) - {"/v1/embeddings"}:
            for more in ({}, {"stream": True}):
                if more and path.endswith("compact"):
                    continue
                reply = await narrow.ours.post(path, json=BODIES[path] | more)
                assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded")
                assert float(reply.headers["retry-after-ms"]) > 0
        engine._hold.set()
        assert (await running).status_code == 200
        assert len(engine.requests) == 1
        assert (await narrow.ours.post(CHAT, json=BODIES[CHAT])).status_code == 200

    async def test_a_refused_turn_leaves_nothing(self, narrow: Api, engine: FakeEngine) -> None:
        """No item in its conversation and no lock on it, of a chat or of a response."""
        conversation = (await narrow.ours.post("/v1/conversations", json={})).json()["id"]
        engine._hold = asyncio.Event()
        running = asyncio.create_task(narrow.theirs.post(CHAT, json=BODIES[CHAT]))
        await in_engine(engine, 1)
        for path in (CHAT, RESPONSES):
            reply = await narrow.ours.post(path, json=BODIES[path] | {"conversation": conversation})
            assert reply.status_code == 503
        engine._hold.set()
        await running
        items = (await narrow.ours.get(f"/v1/conversations/{conversation}/items")).json()
        assert items["data"] == []
        reply = await narrow.ours.post(CHAT, json=BODIES[CHAT] | {"conversation": conversation})
        assert reply.status_code == 200

    async def test_who_leaves_the_queue_is_gone_at_once(
        self, engine: FakeEngine, smollm2: Path, sqlite_database: Database
    ) -> None:
        """The engine never hears of it, and nothing waits any more."""
        engine._hold = asyncio.Event()
        async with api_for(engine, smollm2, sqlite_database, ADMISSION_SLOTS="1") as api:
            queue = api.runtime.gate._queue
            running = asyncio.create_task(api.ours.post(CHAT, json=BODIES[CHAT]))
            await in_engine(engine, 1)
            queue._max_waiting = 1
            visitor = Visitor(CHAT, BODIES[CHAT] | {"stream": True})
            visit = asyncio.create_task(visitor.visit(api.app))
            await until(lambda: queue.waiting == 1)
            visitor.left.set()
            await visit
            assert queue.waiting == 0
            engine._hold.set()
            await running
            assert (len(engine.requests), queue.free) == (1, 1)

    async def test_the_background_waits_and_is_not_lost(self, narrow: Api, engine: FakeEngine) -> None:
        """Queued while there is no slot, though nobody else may wait; then it is made."""
        engine._hold = asyncio.Event()
        running = asyncio.create_task(narrow.theirs.post(CHAT, json=BODIES[CHAT]))
        await in_engine(engine, 1)
        made = (await narrow.ours.post(RESPONSES, json=BODIES[RESPONSES] | {"background": True})).json()
        await until(lambda: narrow.runtime.gate._queue.waiting == 1)
        assert (await narrow.ours.get(f"{RESPONSES}/{made['id']}")).json()["status"] == "queued"
        engine._hold.set()
        await running
        async with asyncio.timeout(10):
            while (await narrow.ours.get(f"{RESPONSES}/{made['id']}")).json()["status"] in ("queued", "in_progress"):
                await asyncio.sleep(0.05)
        done = (await narrow.ours.get(f"{RESPONSES}/{made['id']}")).json()
        assert done["status"] == "incomplete"
        assert done["usage"]["output_tokens"] == 4

    async def test_the_background_holds_its_share_until_it_ends(
        self, engine: FakeEngine, limits: Limits, smollm2: Path, sqlite_database: Database
    ) -> None:
        """Taken before its row is there, settled by what it used, also when it is cancelled."""
        engine._hold = asyncio.Event()
        async with client_for(engine, smollm2, None, None, sqlite_database, limits) as http:
            body = BODIES[RESPONSES] | {"background": True}
            made = (await http.post(RESPONSES, json=body)).json()
            await in_engine(engine, 1)
            assert not limits.settled
            assert (await http.post(f"{RESPONSES}/{made['id']}/cancel")).json()["status"] == "cancelled"
            await until(lambda: limits.settled)
            engine._hold.set()
            await http.post(RESPONSES, json=body)
            await until(lambda: len(limits.settled) == 2)
            (cancelled, prompt, _), (whole, used, _) = limits.settled
            assert (cancelled.tokens - prompt, whole.tokens - used) == (4, 0)
            limits.closed = True
            before = await rows(sqlite_database)
            assert (await http.post(RESPONSES, json=body)).status_code == 429
            assert await rows(sqlite_database) == before

    async def test_a_completion_of_many_prompts_gives_the_engine_no_more_than_there_are_slots(
        self, smollm2: Path, sqlite_database: Database
    ) -> None:
        """Ten prompts before three slots."""
        most = 0

        class Counting(FakeEngine):
            async def _pause(self, position: int) -> None:
                nonlocal most
                most = max(most, self.running)
                await asyncio.sleep(0.001)

        async with api_for(Counting(), smollm2, sqlite_database, ADMISSION_SLOTS="3") as api:
            body = {"model": "hermes-2", "prompt": ["Paris is"] * 10, "max_tokens": 3}
            reply = await api.ours.post("/v1/completions", json=body)
        assert len(reply.json()["choices"]) == 10
        assert most == 3


async def rows(database: Database) -> int:
    async with database.reading() as uow:
        return len(await uow.turns.running())


async def test_the_salt_of_the_prefix_cache_is_the_tenant_s_and_tells_nothing(narrow: Api, engine: FakeEngine) -> None:
    """The same for one tenant, another for another; neither its name nor to be had without the pepper."""
    for http in (narrow.ours, narrow.ours, narrow.theirs):
        await http.post(CHAT, json=BODIES[CHAT])
    salts = [request.cache_salt for request in engine.requests]
    assert salts == [cache_salt(PEPPER, OURS)] * 2 + [cache_salt(PEPPER, THEIRS)]
    assert len(set(salts)) == 2
    assert len(salts[0]) == 64
    assert cache_salt(b"another", OURS) != salts[0]
