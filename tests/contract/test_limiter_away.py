"""The limiter on a Valkey that is paused, killed, and there again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import valkey.asyncio

from frontend.domain.errors import RateLimited
from frontend.domain.limits import UNLIMITED, Account, Grant, Limits
from frontend.valkey.breaker import Breaker
from frontend.valkey.hot_state import open_state
from frontend.valkey.limiter import ValkeyLimiter, open_limiter
from frontend.valkey.pipe import open_pipe
from tests.support.valkey import Server

TIMEOUT_S = 0.04
WORKERS = 4


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = Server(tmp_path / "v.sock")
    await running.answers()
    yield running
    running.end()


def account(limits: Limits, tenant: str = "acme") -> Account:
    return Account(tenant=tenant, key_id="key_1", of_tenant=limits, of_key=UNLIMITED)


MANY = account(Limits(requests_per_minute=1_000_000, tokens_per_minute=50_000_000, concurrency=100000), "other")


async def timed(limiter: ValkeyLimiter) -> tuple[float, Grant]:
    started = time.perf_counter()
    grant = await limiter.acquire(MANY, 10, lease=True)
    return time.perf_counter() - started, grant


async def until(limiter: ValkeyLimiter, *, local: bool) -> float:
    """Seconds until it counts alone, or with Valkey."""
    started = time.perf_counter()
    async with asyncio.timeout(10):
        while (await limiter.acquire(MANY, 0, lease=False)).local is not local:
            await asyncio.sleep(0.01)
    return time.perf_counter() - started


async def leases(client: valkey.asyncio.Valkey) -> list[str]:
    return [each.decode() for each in await client.zrange("hm2:limit:leases:tenant:acme", 0, -1)]


async def passed(limiter: ValkeyLimiter, limited: Account, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            await limiter.acquire(limited, 0, lease=False)
        except RateLimited:
            continue
        count += 1
    return count


async def test_a_paused_server_costs_fifty_milliseconds_once(server: Server) -> None:
    """Of the first request, hot state included; the next ones cost nothing, and two seconds after the pause all is as before."""
    breaker = Breaker(TIMEOUT_S)
    async with open_state(server.url, breaker) as state, open_limiter(server.url, breaker, WORKERS) as limiter:
        assert (await timed(limiter))[1].local is False
        server.pause()
        started = time.perf_counter()
        grant = await limiter.acquire(MANY, 10, lease=True)
        await state.get_window("acme", "conv_1", 1)
        assert time.perf_counter() - started < 0.05
        assert grant.local is True
        assert sum([(await timed(limiter))[0] for _ in range(20)]) < 0.02
        server.go_on()
        assert await until(limiter, local=False) < 2


async def test_all_that_wait_for_a_paused_server_go_on_together(server: Server) -> None:
    """A hundred at once, through several seconds of a pause: none waits longer than its deadline, all are answered."""
    async with open_limiter(server.url, Breaker(TIMEOUT_S), WORKERS) as limiter:
        await asyncio.gather(*(timed(limiter) for _ in range(100)))
        server.pause()
        for _ in range(15):
            found = await asyncio.gather(*(timed(limiter) for _ in range(100)))
            assert max(each for each, _ in found) < 0.2
            await asyncio.sleep(0.1)
        server.go_on()
        assert await until(limiter, local=False) < 2


async def test_a_hundred_that_miss_the_functions_load_them_once(server: Server) -> None:
    """Over one connection: each its own text would fill it."""
    async with (
        valkey.asyncio.Valkey.from_url(server.owner_url) as client,
        open_limiter(server.url, Breaker(10), WORKERS) as limiter,
    ):
        before = await connections(client)
        await asyncio.gather(*(timed(limiter) for _ in range(100)))
        assert await connections(client) == before + 1
        assert (await client.info("commandstats"))["cmdstat_function|load"]["calls"] == 1


async def test_who_leaves_a_full_connection_ends_it_for_all(server: Server) -> None:
    """The server reads nothing. Who comes later gets a new one, all the same: not each its own."""
    async with valkey.asyncio.Valkey.from_url(server.owner_url) as client, open_pipe(server.url) as pipe:
        await pipe.ask("PING")
        before = await connections(client)
        server.pause()
        left = [asyncio.create_task(pipe.ask("PING", bytes(100_000))) for _ in range(50)]
        await asyncio.wait(left, timeout=0.1)
        for each in left:
            each.cancel()
        await asyncio.wait(left)
        come = [asyncio.create_task(pipe.ask("PING")) for _ in range(50)]
        await asyncio.wait(come, timeout=0.1)
        server.go_on()
        assert await asyncio.gather(*come) == [b"PONG"] * 50
        assert await connections(client) == before + 1


async def connections(client: valkey.asyncio.Valkey) -> int:
    """That there have been."""
    return int((await client.info("stats"))["total_connections_received"])


async def test_a_share_is_what_one_process_has(server: Server) -> None:
    """Without Valkey one of four processes lets a quarter through; and what Valkey let through has been counted."""
    fresh, known = (
        account(Limits(requests_per_minute=2400), "fresh"),
        account(Limits(requests_per_minute=2400), "known"),
    )
    async with open_limiter(server.url, Breaker(TIMEOUT_S), WORKERS) as limiter:
        assert 400 <= await passed(limiter, known, 500) < 450
        server.end()
        assert 100 <= await passed(limiter, fresh, 500) < 110
        assert await passed(limiter, known, 500) < 20, "no fresh burst"
        await asyncio.sleep(0.5)
        assert 3 <= await passed(limiter, known, 500) < 15, "and nobody is locked out"


async def test_what_was_taken_in_a_pause_is_given_back(server: Server) -> None:
    """A command that took too long is carried out when Valkey wakes: its lease is not meant, and does not stay. Nor does one
    whose generation has ended meanwhile."""
    limited = account(Limits(concurrency=2))
    async with (
        open_limiter(server.url, Breaker(TIMEOUT_S), WORKERS) as limiter,
        valkey.asyncio.Valkey.from_url(server.owner_url) as client,
    ):
        before = await limiter.acquire(limited, 0, lease=True)
        server.pause()
        with pytest.raises(RateLimited) as caught:
            await limiter.acquire(limited, 0, lease=True)
        assert caught.value.limit == "concurrency", "one of this process is under way, and that is its share"
        await limiter.settle(before, 0)
        alone = await limiter.acquire(limited, 0, lease=True)
        assert alone.local is True
        server.go_on()
        async with asyncio.timeout(5):
            while await leases(client) != [alone.id]:
                await asyncio.sleep(0.02)
        await limiter.settle(alone, 0)
        for _ in range(2):
            assert (await limiter.acquire(limited, 0, lease=True)).local is False


async def test_what_was_granted_alone_is_told_when_valkey_is_back(server: Server) -> None:
    """Requests, tokens and generations under way: a Valkey that comes and goes is no second limit. All of it is given back
    as if it had been there."""
    limited = account(Limits(requests_per_minute=60, tokens_per_minute=6000, concurrency=8))
    async with (
        open_limiter(server.url, Breaker(TIMEOUT_S), WORKERS) as limiter,
        valkey.asyncio.Valkey.from_url(server.owner_url) as client,
    ):
        await limiter.acquire(MANY, 0, lease=False)
        server.pause()
        alone = [await limiter.acquire(limited, 100, lease=True) for _ in range(2)]
        assert [each.local for each in alone] == [True, True]
        await limiter.settle(alone[0], 50)
        server.go_on()
        async with asyncio.timeout(5):
            while [each.decode() for each in await client.zrange("hm2:limit:leases:tenant:acme", 0, -1)] != [
                alone[1].id
            ]:
                await asyncio.sleep(0.02)
        told = (await limiter.acquire(limited, 0, lease=False)).standing
        assert told.requests is not None
        assert told.tokens is not None
        assert 5 <= told.requests.remaining <= 8
        assert told.tokens.remaining < 1000
        await limiter.settle(alone[1], 0)
        assert not await client.zcard("hm2:limit:leases:tenant:acme")
        after = (await limiter.acquire(limited, 0, lease=False)).standing.tokens
        assert after is not None
        assert after.remaining > told.tokens.remaining


async def test_who_leaves_while_it_is_asked_takes_nothing(server: Server) -> None:
    """A client that is gone before Valkey has answered holds no place."""
    limited = account(Limits(concurrency=1))
    async with (
        open_limiter(server.url, Breaker(TIMEOUT_S), WORKERS) as limiter,
        valkey.asyncio.Valkey.from_url(server.owner_url) as client,
    ):
        await limiter.acquire(MANY, 0, lease=True)
        server.pause()
        leaving = asyncio.create_task(limiter.acquire(limited, 0, lease=True))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])
        server.go_on()
        async with asyncio.timeout(5):
            while await client.zcard("hm2:limit:leases:tenant:acme"):
                await asyncio.sleep(0.05)
        assert (await limiter.acquire(limited, 0, lease=True)).local is False


async def test_a_new_server_is_found(server: Server, tmp_path: Path) -> None:
    """On the same socket, after the old one was killed."""
    async with open_limiter(server.url, Breaker(TIMEOUT_S), WORKERS) as limiter:
        assert (await timed(limiter))[1].local is False
        server.end()
        took_s, grant = await timed(limiter)
        assert grant.local is True
        assert took_s < 0.05
        again = Server(tmp_path / "v.sock")
        try:
            await again.answers()
            assert await until(limiter, local=False) < 2
        finally:
            again.end()
