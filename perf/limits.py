"""How exact limits are: four frontend processes under ten times the load, and with a Valkey that is paused in the middle.

The service is started with the scripted engine; it is all real but the model. Times are the client's: a request counts when its
reply has come.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import cast

import httpx
import msgspec
import valkey

from deploy.launcher.preflight import valkey_socket
from perf import machine, service

WORKERS = 4
TIMES = 10
"""The load, of the limit."""
REQUESTS, TOKENS, PLACES = 600, 60_000, 8
WINDOW_S = 60.0
CLIENTS = 32
"""Each with connections of its own: the kernel spreads them over the processes."""
ANSWER_TOKENS = 64
AMPLE_PER_S = 50
PLANS = f"""
[plans.requests.tenant]
requests_per_minute = {REQUESTS}
[plans.tokens.tenant]
tokens_per_minute = {TOKENS}
[plans.places.tenant]
concurrency = {PLACES}
[tenants]
requests = "requests"
tokens = "tokens"
places = "places"
"""
Say = Callable[[str], None]


class Reply(msgspec.Struct, frozen=True):
    at: float
    """When it had come, s."""
    took_s: float
    status: int
    tokens: int
    """Of prompt and answer."""


class Found(msgspec.Struct, kw_only=True):
    requests: list[Reply]
    tokens: list[Reply]
    most_at_once: int
    """Generations, where PLACES were allowed."""
    before: list[Reply]
    """With an ample plan, while all is well."""
    paused: list[Reply]
    """The same, from the moment on when Valkey was paused."""
    alone: list[Reply]
    """Of the tenant with few requests, meanwhile."""
    heals_s: float
    too_late: int
    """Commands that Valkey did not answer in time before it was paused: the machine was busy."""


def measure(seconds: float, pause_s: float, say: Say) -> Found:
    """`seconds`: under load, for each limit; at least WINDOW_S and some."""
    with TemporaryDirectory() as folder:
        plans = Path(folder) / "plans.toml"
        plans.write_text(PLANS)
        settings = {
            "ENGINE_BACKEND": "scripted",
            "EMBEDDER_ENABLED": "false",
            "WORKERS": WORKERS,
            "LIMITS_PLANS": plans,
        }
        with service.running(**settings) as running:
            return asyncio.run(phases(running, seconds, pause_s, say))


async def phases(running: service.Service, seconds: float, pause_s: float, say: Say) -> Found:
    keys = {tenant: running.new_key(tenant) for tenant in ("requests", "tokens", "places")}
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=running.url)) for _ in range(CLIENTS)]
        say(f"requests: {REQUESTS} a minute, {TIMES} times as many are asked for")
        requests = await load(clients, keys["requests"], REQUESTS * TIMES / 60, seconds, 1)
        per_s = TOKENS * TIMES / 60 / (ANSWER_TOKENS + max(each.tokens for each in requests) - 1)
        say(f"tokens: {TOKENS} a minute, {per_s:.0f} requests a second")
        tokens = await load(clients, keys["tokens"], per_s, seconds, ANSWER_TOKENS)
        say(f"generations: {PLACES} at a time")
        most = await most_at_once(clients, keys["places"])
        too_late = await total(clients[0], running.key, "hermes2_valkey_failures_total")
        say("Valkey is paused")
        before, _ = await both(clients, running.key, keys["requests"], 10)
        pid = process_of_valkey(Path(running.environment["HERMES2_HOME"]))
        os.kill(pid, signal.SIGSTOP)
        try:
            paused, alone = await both(clients, running.key, keys["requests"], pause_s)
        finally:
            os.kill(pid, signal.SIGCONT)
        heals_s = await until_together(running)
    return Found(
        requests=requests,
        tokens=tokens,
        most_at_once=most,
        before=before,
        paused=paused,
        alone=alone,
        heals_s=heals_s,
        too_late=round(too_late),
    )


def process_of_valkey(home: Path) -> int:
    with valkey.Valkey(unix_socket_path=str(valkey_socket(home))) as server:
        return int(cast(dict[str, int], server.info("server"))["process_id"])


async def load(
    clients: Sequence[httpx.AsyncClient], key: str, per_s: float, seconds: float, answer_tokens: int
) -> list[Reply]:
    """At an even pace, whatever comes back."""
    begun, asked = time.monotonic(), []
    for number, client in zip(range(round(per_s * seconds)), itertools.cycle(clients), strict=False):
        await asyncio.sleep(begun + number / per_s - time.monotonic())
        asked.append(asyncio.create_task(chat(client, key, answer_tokens)))
    return sorted(await asyncio.gather(*asked), key=lambda each: each.at)


async def both(
    clients: Sequence[httpx.AsyncClient], ample: str, few: str, seconds: float
) -> tuple[list[Reply], list[Reply]]:
    """A tenant whose plan is ample, and beside it the one that asks for ten times its requests."""
    return await asyncio.gather(
        load(clients, ample, AMPLE_PER_S, seconds, 1), load(clients, few, REQUESTS * TIMES / 60, seconds, 1)
    )


async def chat(client: httpx.AsyncClient, key: str, answer_tokens: int) -> Reply:
    begun = time.monotonic()
    reply = await client.post("/v1/chat/completions", headers=bearer(key), json=body(answer_tokens), timeout=60)
    now = time.monotonic()
    tokens = reply.json()["usage"]["total_tokens"] if reply.status_code == 200 else 0
    return Reply(now, now - begun, reply.status_code, tokens)


def body(answer_tokens: int, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return {"model": "hermes-2", "messages": messages, "max_tokens": answer_tokens, **more}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def most_at_once(clients: Sequence[httpx.AsyncClient], key: str, seconds: float = 8.0) -> int:
    """Of ten times as many as are allowed, each of which tries again and again."""
    until, now, most = time.monotonic() + seconds, 0, 0

    async def visit(client: httpx.AsyncClient) -> None:
        nonlocal now, most
        while time.monotonic() < until:
            request = client.stream(
                "POST", "/v1/chat/completions", headers=bearer(key), json=body(100, stream=True), timeout=60
            )
            async with request as reply:
                if reply.status_code == 200:
                    now += 1
                    most = max(most, now)
                    async for line in reply.aiter_lines():
                        if line == "data: [DONE]":
                            break
                    now -= 1
            await asyncio.sleep(0.1)

    await asyncio.gather(
        *(visit(client) for client, _ in zip(itertools.cycle(clients), range(PLACES * TIMES), strict=False))
    )
    return most


async def until_together(running: service.Service) -> float:
    """Seconds until no process counts alone any more."""
    begun = time.monotonic()
    async with httpx.AsyncClient(base_url=running.url) as client:
        while await total(client, running.key, "hermes2_limits_local") > 0:  # another process's
            await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def total(client: httpx.AsyncClient, key: str, metric: str) -> float:
    """Of all processes."""
    text = (await client.get("/metrics", headers=bearer(key))).text
    found = re.search(rf"^{metric} (\S+)$", text, re.MULTILINE)
    assert found is not None, metric
    return float(found[1])


def granted(replies: Sequence[Reply]) -> list[Reply]:
    return [each for each in replies if each.status == 200]


def in_windows(replies: Sequence[Reply], weight: Callable[[Reply], int]) -> Iterator[tuple[float, int]]:
    """The end of each window that ends with a reply, and what it holds."""
    total, first = 0, 0
    for each in replies:
        total += weight(each)
        while replies[first].at <= each.at - WINDOW_S:
            total -= weight(replies[first])
            first += 1
        yield each.at, total


def accuracy(replies: Sequence[Reply], limit: int, weight: Callable[[Reply], int]) -> tuple[float, float]:
    """The most that any minute held, and what the last one did, of the limit."""
    windows = [held for _, held in in_windows(granted(replies), weight)]
    end = replies[-1].at
    last = sum(weight(each) for each in granted(replies) if each.at > end - WINDOW_S)
    return max(windows) / limit, last / limit


def ms(values: Sequence[float]) -> str:
    return f"{median(values) * 1e3:.0f} / {sorted(values)[int(len(values) * 0.99)] * 1e3:.0f} / {max(values) * 1e3:.0f}"


def report(found: Found, seconds: float, pause_s: float) -> str:
    rows = []
    for name, replies, limit, weight in (
        ("requests", found.requests, REQUESTS, lambda each: 1),
        ("tokens used", found.tokens, TOKENS, lambda each: each.tokens),
    ):
        most, last = accuracy(replies, limit, weight)
        rows.append(
            f"| {name} | {limit:,} a minute | {len(replies):,} requests | {most:.1%} | {last:.1%} |"
            f" {statuses(replies)} |"
        )
    passed = len(granted(found.alone))
    first = [each for each in found.paused if each.at < found.paused[0].at + 1]
    return f"""\
# How exact limits are

`python -m perf limits --seconds {seconds:g} --pause {pause_s:g}` on {machine.describe()}. The real
stack with the scripted engine, {WORKERS} frontend processes, {CLIENTS} clients, chat completions; {TIMES} times the
limit is asked for, at an even pace.

| | limit | load | most in any 60 s | the last 60 s | replies |
|---|---|---|---|---|---|
{chr(10).join(rows)}

At most 7/6 (116.7 %) may be had in 60 s. Commands that Valkey did not answer in time: {found.too_late};
for a second after each the process counts alone. Times are the client's, which hears of a reply later
than the service made it: some requests more in a window are of that. Where {PLACES} generations may be under way,
{PLACES * TIMES} clients had {found.most_at_once} that they had not heard the end of.

Valkey is paused (SIGSTOP) for {pause_s:g} s, under {AMPLE_PER_S} requests a second of a tenant with an ample plan, and
{REQUESTS * TIMES // 60} of the tenant with {REQUESTS} requests a minute:

| | median / p99 / longest, ms | replies |
|---|---|---|
| before | {ms([each.took_s for each in found.before])} | {statuses(found.before)} |
| paused, first second | {ms([each.took_s for each in first])} | {statuses(first)} |
| paused | {ms([each.took_s for each in found.paused])} | {statuses(found.paused)} |

Without Valkey the limited tenant had {passed} requests; its limit gives {REQUESTS * pause_s / 60:.0f} in that time,
beside a burst of {REQUESTS / 6:.0f} that it had used up before.
All processes count together again {found.heals_s:.2f} s after Valkey goes on.
"""


def statuses(replies: Sequence[Reply]) -> str:
    found = sorted({each.status for each in replies})
    return ", ".join(f"{sum(each.status == status for each in replies):,} x {status}" for status in found)
