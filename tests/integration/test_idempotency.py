"""Idempotency-Key over two real frontend processes that share a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import openai
import pytest

from tests.support.stack import API_KEY, Stack

TIMES = 100
CHAT = {"model": "hermes-2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 32}
REPLAYED = "idempotent-replayed"


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two of them; the engine is the scripted one, and slow enough that requests overlap."""
    with Stack(
        tmp_path_factory.mktemp("workers"), ENGINE_BACKEND="scripted", ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=20, WORKERS=2
    ) as running:
        yield running


@pytest.fixture
async def http(workers: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A connection for each request: both processes get some."""
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {"authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(base_url=workers.url, headers=headers, limits=limits, timeout=60) as client:
        yield client


async def chat(http: httpx.AsyncClient, key: str, *, stream: bool) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=CHAT | {"stream": stream}, headers={"idempotency-key": key})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hundred_with_the_same_key_are_one_run(http: httpx.AsyncClient, stream: bool) -> None:
    """One is worked on, the others are told to wait, or get its reply; afterwards all get it, byte by byte."""
    key = f"hundred-{stream}"
    replies = await asyncio.gather(*(chat(http, key, stream=stream) for _ in range(TIMES)))
    assert {each.status_code for each in replies} <= {200, 409}
    runs = [each for each in replies if each.status_code == 200 and REPLAYED not in each.headers]
    assert len(runs) == 1
    assert sum(each.status_code == 409 for each in replies) > TIMES / 2
    replays = await asyncio.gather(*(chat(http, key, stream=stream) for _ in range(TIMES)))
    assert {(each.status_code, each.headers[REPLAYED], each.content) for each in replays} == {
        (200, "true", runs[0].content)
    }


async def test_a_stream_with_a_key_comes_as_it_is_made(http: httpx.AsyncClient) -> None:
    """What is recorded is not held back: 32 tokens at 20 ms each come one by one."""
    clock = asyncio.get_running_loop().time
    async with http.stream(
        "POST", "/v1/chat/completions", json=CHAT | {"stream": True}, headers={"idempotency-key": "flows"}
    ) as reply:
        times = [clock() async for _ in reply.aiter_lines()]
    assert times[-1] - times[0] > 0.3


async def test_the_sdk_sends_a_key(http: httpx.AsyncClient, workers: Stack) -> None:
    """As OpenAI's clients do it: a header of the request; the ids of both replies are the same."""
    async with openai.AsyncOpenAI(base_url=f"{workers.url}/v1", api_key=API_KEY) as sdk:
        ids = set()
        for _ in range(2):
            made = await sdk.responses.create(
                model="hermes-2", input="Hi", max_output_tokens=16, extra_headers={"idempotency-key": "sdk-1"}
            )
            ids.add(made.id)
    assert len(ids) == 1
    assert json.loads((await http.get(f"/v1/responses/{ids.pop()}")).content)["status"] in ("completed", "incomplete")


async def test_the_reply_outlives_the_process_that_made_it(http: httpx.AsyncClient, workers: Stack) -> None:
    """And what a killed process was working on is begun anew by another at once, with no second answer kept."""
    before = await chat(http, "kept", stream=False)
    doomed = asyncio.create_task(chat(http, "doomed", stream=False))
    await asyncio.sleep(0.2)
    assert (await chat(http, "doomed", stream=False)).status_code == 409
    granian = [p for p in workers.family() if "granian" in " ".join(p.cmdline())]
    master = min(granian, key=lambda each: each.create_time())
    for process in master.children():
        process.kill()
    with pytest.raises(httpx.TransportError):
        await doomed
    await answering(http)
    after, anew = await chat(http, "kept", stream=False), await chat(http, "doomed", stream=False)
    kept = await chat(http, "doomed", stream=False)
    assert (after.content, after.headers[REPLAYED]) == (before.content, "true")
    assert anew.status_code == 200
    assert REPLAYED not in anew.headers
    assert kept.content == anew.content


async def answering(http: httpx.AsyncClient) -> None:
    """Returns when new processes do."""
    async with asyncio.timeout(30):
        while True:
            try:
                await http.get("/health/live")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
