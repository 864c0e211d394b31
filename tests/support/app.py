"""The frontend in this process, with fakes behind its ports: the whole HTTP side without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx

from deploy.launcher import embedder as embedder_launcher
from frontend import settings as settings_module
from frontend.app import create_app
from frontend.domain.ports import Embedder, Engine
from frontend.http.access_log import AccessLog
from frontend.runtime import Runtime, assemble
from frontend.settings import Settings
from tests.support.stack import API_KEY

HEADERS = {"authorization": f"Bearer {API_KEY}"}


class FakeHotState:
    def __init__(self, alive: bool = True) -> None:
        self.alive = alive

    async def check(self) -> bool:
        return self.alive


@asynccontextmanager
async def client_for(
    engine: Engine,
    model: Path,
    state: FakeHotState | None = None,
    embedder: Embedder | None = None,
    **variables: str,
) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that talks to the application directly; `variables` are settings without their prefix."""
    environment = {
        "HERMES2_MODEL_DIR": str(model),
        "HERMES2_API_KEY": API_KEY,
        "HERMES2_EMBEDDER_ENABLED": "true" if embedder is not None else "false",
        "HERMES2_EMBEDDER_MODEL_DIR": str(embedder_launcher.folder(settings_module.load())),
    }
    settings = settings_module.load(environment | {f"HERMES2_{name}": value for name, value in variables.items()})

    @asynccontextmanager
    async def open_fakes(settings: Settings) -> AsyncIterator[Runtime]:
        with ThreadPoolExecutor(1) as threads:
            yield assemble(settings, engine, state or FakeHotState(), threads, embedder)

    app = create_app(settings, open_fakes)
    async with in_a_task(app.lifespan()):
        transport = httpx.ASGITransport(AccessLog(app), raise_app_exceptions=False)  # type: ignore[arg-type]  # Litestar's types
        async with httpx.AsyncClient(transport=transport, base_url="http://hermes2", headers=HEADERS) as client:
            yield client


@asynccontextmanager
async def in_a_task(lifespan: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    """Enters and leaves `lifespan` in one task, as it demands; pytest runs the two halves of a fixture in two."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with lifespan:
            started.set()
            await stop.wait()

    task = asyncio.create_task(hold())
    starting = asyncio.create_task(started.wait())
    await asyncio.wait([task, starting], return_when=asyncio.FIRST_COMPLETED)
    try:
        if task.done():
            task.result()
        yield
    finally:
        starting.cancel()
        stop.set()
        await task
