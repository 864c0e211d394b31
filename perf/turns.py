"""What it costs to begin and to store a turn, without the model: the transactions of docs/decisions/0009 on each database."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import msgspec
import valkey.asyncio

from frontend.db.database import open_database
from frontend.db.engines import Synchronous, sqlite_url
from frontend.domain import ids
from frontend.domain.conversations import Conversation, Window
from frontend.domain.items import InputText, MessageItem, OutputText
from frontend.domain.responses import Response
from frontend.domain.storage import Database
from frontend.services.turns import TurnKeeper
from perf import machine

TENANT = "perf"


class NoHotState:
    async def check(self) -> bool:
        return False

    async def get_window(self, tenant: str, conversation_id: str, version: int) -> Window | None:
        return None

    async def put_window(self, tenant: str, window: Window) -> None: ...
    async def drop_window(self, tenant: str, conversation_id: str) -> None: ...


async def a_turn(database: Database, keeper: TurnKeeper, conversation_id: str) -> None:
    """All that SQL does for one: the window is read, the turn begins, the turn is stored."""
    async with database.reading() as uow:
        conversation = await uow.conversations.get(TENANT, conversation_id)
    window = Window(conversation=conversation, pinned=[], history=[])
    question = MessageItem(id=ids.new("msg_"), role="user", content=[InputText("What is the capital of France?")])
    answer = MessageItem(id=ids.new("msg_"), role="assistant", content=[OutputText("The capital of France is Paris.")])
    response = Response(
        id=ids.new("resp_"),
        model="m",
        status="in_progress",
        parameters=b"{}",
        created_at=int(time.time()),
        conversation_id=conversation_id,
    )
    turn = await keeper.begin(TENANT, response.id, items=[question], window=window, response=response)
    ended = msgspec.structs.replace(response, status="completed", output=[answer])
    await keeper.store(turn, [answer], ended)


async def of_database(url: str, synchronous: Synchronous, turns: int, writers: int) -> str:
    async with open_database(url, pool_size=writers + 1, timeout_s=10, synchronous=synchronous) as database:
        keeper = TurnKeeper(database, NoHotState(), lease_s=15, most_items=10**6)
        conversations = [ids.new("conv_") for _ in range(writers)]
        async with database.writing() as uow:
            await uow.keys.ensure_tenant(TENANT, 0)
            for each in conversations:
                await uow.conversations.add(
                    TENANT, Conversation(id=each, metadata={}, created_at=0, last_active_at=0), 10**6
                )
        alone = await timed(lambda: a_turn(database, keeper, conversations[0]), turns)

        async def write(conversation_id: str) -> None:
            for _ in range(turns):
                await a_turn(database, keeper, conversation_id)

        started = time.perf_counter()
        await asyncio.gather(*map(write, conversations))
        rate = turns * writers / (time.perf_counter() - started)
    return f"{alone:.2f} ms | {rate:.0f}/s"


async def timed(work: Callable[[], Awaitable[object]], times: int) -> float:
    """Median of one call, ms."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


async def of_valkey(url: str, times: int) -> str:
    """The commands that a lease there would need beside the same two transactions: take, fence, give back."""
    client = valkey.asyncio.Valkey.from_url(url)
    try:

        async def lease() -> None:
            await client.set("hm2:perf:lease", "1", nx=True, px=15_000)
            await client.incr("hm2:perf:fence")
            await client.delete("hm2:perf:lease")

        return f"{await timed(lease, times):.2f} ms | "
    finally:
        await client.delete("hm2:perf:fence")
        await client.aclose()


async def measure(turns: int, writers: int, postgres: str | None, valkey_url: str | None) -> str:
    rows = []
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        for synchronous in get_args(Synchronous):
            url = sqlite_url(Path(folder) / f"{synchronous}.db")
            rows.append(
                f"| SQLite, synchronous={synchronous} | {await of_database(url, synchronous, turns, writers)} |"
            )
    if postgres:
        rows.append(f"| PostgreSQL | {await of_database(postgres, 'full', turns, writers)} |")
    if valkey_url:
        rows.append(f"| a lease in Valkey, in addition | {await of_valkey(valkey_url, turns)} |")
    how = (
        f"`python -m perf turns --turns {turns} --writers {writers}` on {machine.describe()}. Without the model: the"
        " conversation is read, the turn begins (response, input and lease, one transaction), the turn is stored (output,"
        " numbering, lease, one transaction)."
    )
    head = f"| database | one turn, median | {writers} writers at once |"
    return "\n".join(["# What a turn costs in SQL", "", how, "", head, "|---|---|---|", *rows, ""])
