"""The limiter in four processes at once, and in a Valkey that has no memory left. The long form is `python -m perf limits`."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
import pytest
import valkey.asyncio

from frontend.domain.errors import RateLimited
from frontend.domain.limits import UNLIMITED, Account, Limits
from frontend.valkey.breaker import Breaker
from frontend.valkey.limiter import open_limiter
from tests.support.valkey import Server

PROCESSES = 4
LIMIT, SECONDS = 1200, 4.0
TIMES = 10


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = Server(tmp_path / "v.sock", MEMORY_VALKEY="4MB")
    await running.answers()
    yield running
    running.end()


class Sent(msgspec.Struct, frozen=True):
    """By one process."""

    passed: int
    alone: int
    """Of them, not counted in Valkey."""
    first: float
    last: float


def load(url: str, begin: float) -> Sent:
    return asyncio.run(send(url, begin))


async def send(url: str, begin: float) -> Sent:
    own = Account(tenant="acme", key_id="key_1", of_tenant=Limits(requests_per_minute=LIMIT), of_key=UNLIMITED)
    passed, alone, interval_s = 0, 0, 60 * PROCESSES / LIMIT / TIMES
    async with open_limiter(url, Breaker(0.5), PROCESSES) as limiter:
        await asyncio.sleep(begin - time.time())
        first = time.time()
        for number in range(1, round(SECONDS / interval_s) + 1):
            try:
                grant = await limiter.acquire(own, 0, lease=False)
            except RateLimited:
                pass
            else:
                passed, alone = passed + 1, alone + grant.local
            await asyncio.sleep(begin + number * interval_s - time.time())
    return Sent(passed, alone, first, time.time())


async def test_four_processes_share_one_limit(server: Server) -> None:
    """Under ten times the load as much passes as the limit gives: its burst, and then its pace; to one in a hundred."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 0.5) for _ in range(PROCESSES)))  # all are there
        begin = time.time() + 0.5
        found = await asyncio.gather(*(loop.run_in_executor(pool, load, server.url, begin) for _ in range(PROCESSES)))
    passed = sum(each.passed for each in found)
    together_s = min(each.last for each in found) - max(each.first for each in found)
    in_all_s = max(each.last for each in found) - min(each.first for each in found)
    print(f"{passed} passed within {in_all_s:.2f} s")
    assert sum(each.alone for each in found) == 0
    assert passed <= LIMIT / 6 + LIMIT / 60 * in_all_s + 1
    assert passed >= 0.99 * (LIMIT / 6 + LIMIT / 60 * together_s) - 1


async def test_limits_are_the_last_to_go_when_memory_is_short(server: Server) -> None:
    """Windows of conversations make room for each other; what is owed is not forgotten."""
    own = Account(
        tenant="acme", key_id="key_1", of_tenant=Limits(requests_per_minute=6, concurrency=3), of_key=UNLIMITED
    )
    async with (
        open_limiter(server.url, Breaker(2.0), 1) as limiter,
        valkey.asyncio.Valkey.from_url(server.owner_url) as client,
    ):
        await limiter.acquire(own, 0, lease=True)
        for number in range(300):
            await client.set(f"hm2:window:acme:conv_{number}", b"x" * 50_000, ex=3600)
        assert (await client.info("stats"))["evicted_keys"] > 100
        with pytest.raises(RateLimited):
            await limiter.acquire(own, 0, lease=False)
        assert await client.zcard("hm2:limit:leases:tenant:acme") == 1
