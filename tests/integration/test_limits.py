"""Limits of the whole service, in two processes, whose Valkey is paused under traffic."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.support.app import HEADERS
from tests.support.stack import API_KEY, Stack

REQUESTS = 1200
PLANS = f"[plans.default.tenant]\nrequests_per_minute = {REQUESTS}\nconcurrency = 8\n"
CHAT = {"model": "hermes-2", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("limits")
    (home / "plans.toml").write_text(PLANS)
    with Stack(home, ENGINE_BACKEND="scripted", WORKERS=2, LIMITS_PLANS=home / "plans.toml") as running:
        yield running


async def ask(http: httpx.AsyncClient) -> tuple[float, httpx.Response]:
    started = time.monotonic()
    reply = await http.post("/v1/chat/completions", json=CHAT)
    return time.monotonic() - started, reply


async def alone(http: httpx.AsyncClient) -> float:
    """Processes that count alone."""
    found = re.search(r"^hermes2_limits_local (\S+)$", (await http.get("/metrics")).text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.real
async def test_a_paused_valkey_is_hardly_noticed(limited: Stack) -> None:
    """No request fails or hangs, limits go on, and two seconds after the pause all processes count together."""
    valkey = limited.find("valkey-server")
    async with httpx.AsyncClient(base_url=limited.url, headers=HEADERS, timeout=30) as http:
        for _ in range(10):
            assert (await ask(http))[1].status_code == 200
        valkey.send_signal(signal.SIGSTOP)
        try:
            found = [await ask(http) for _ in range(30)]
            async with asyncio.timeout(5):
                while not await alone(http):
                    await asyncio.sleep(0.05)
        finally:
            valkey.send_signal(signal.SIGCONT)
        resumed = time.monotonic()
        assert {reply.status_code for _, reply in found} == {200}
        assert all(reply.headers["x-ratelimit-limit-requests"] == str(REQUESTS) for _, reply in found)
        print(f"longest, Valkey paused: {max(took_s for took_s, _ in found) * 1e3:.0f} ms")
        assert max(took_s for took_s, _ in found) < 1
        async with asyncio.timeout(4):
            while await alone(http):
                await asyncio.sleep(0.05)
        print(f"together again after {time.monotonic() - resumed:.2f} s")


@pytest.mark.real
async def test_two_processes_share_one_limit_and_the_sdk_waits(limited: Stack) -> None:
    """What is over it is 429 for a client without patience; one with some gets through."""
    limits = httpx.Limits(max_connections=40, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=limited.url, headers=HEADERS, timeout=30, limits=limits) as http:
        started = time.monotonic()
        replies: list[httpx.Response] = []
        while len(replies) < 2 * REQUESTS and not any(reply.status_code == 429 for reply in replies[-200:]):
            replies += await asyncio.gather(*(http.get("/v1/models") for _ in range(200)))
        passed = sum(reply.status_code == 200 for reply in replies)
        assert passed <= REQUESTS / 6 + REQUESTS / 60 * (time.monotonic() - started) + 1
        assert {reply.status_code for reply in replies} == {200, 429}
    async with openai.AsyncOpenAI(base_url=f"{limited.url}/v1", api_key=API_KEY, max_retries=3) as sdk:
        for _ in range(5):
            await sdk.models.list()
