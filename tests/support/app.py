"""The frontend in this process, with fakes behind its ports: the whole HTTP side without a socket."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from litestar import Litestar

from deploy.launcher import embedder as embedder_launcher
from frontend import app as composition
from frontend import settings as settings_module
from frontend.db.database import open_database
from frontend.db.engines import sqlite_url
from frontend.domain.ports import Embedder, Engine, Limiter
from frontend.domain.storage import Database
from frontend.http.access_log import AccessLog
from frontend.http.proxies import Proxies
from frontend.runtime import Runtime, assemble
from frontend.settings import Settings
from tests.fakes.hot_state import FakeHotState as FakeHotState
from tests.fakes.limiter import FakeLimiter
from tests.support.stack import API_KEY

PEPPER = b"pepper" * 6
HEADERS = {"authorization": f"Bearer {API_KEY}"}


@asynccontextmanager
async def client_for(
    engine: Engine,
    model: Path,
    state: FakeHotState | None = None,
    embedder: Embedder | None = None,
    database: Database | None = None,
    limiter: Limiter | None = None,
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
    async def open_fakes(_: Settings) -> AsyncIterator[Runtime]:
        async with AsyncExitStack() as stack:
            threads = stack.enter_context(ThreadPoolExecutor(1))
            truth = database if database is not None else await stack.enter_async_context(temporary_database())
            runtime = assemble(
                settings, engine, state or FakeHotState(), truth, PEPPER, threads, embedder, limiter or FakeLimiter()
            )
            yield await stack.enter_async_context(runtime)

    with application(settings, open_fakes) as app:
        async with in_a_task(app.lifespan()):
            whole = AccessLog(app, Proxies(settings.http.trusted_proxies))
            transport = httpx.ASGITransport(whole, raise_app_exceptions=False)  # type: ignore[arg-type]  # Litestar's types
            async with httpx.AsyncClient(transport=transport, base_url="http://hermes2", headers=HEADERS) as client:
                yield client


Open = Callable[[Settings], AbstractAsyncContextManager[Runtime]]
_FREE: defaultdict[object, list[tuple[Litestar, list[Open]]]] = defaultdict(list)
"""Applications that no client has, and what each will open; by the settings that one is made from. To make one takes a
quarter of a second, and nothing of a test is in it but its runtime."""


@contextmanager
def application(settings: Settings, open_: Open) -> Iterator[Litestar]:
    free = _FREE[settings.http, settings.embedder.enabled, tuple(composition.CONTROLLERS)]
    app, opens = free.pop() if free else made(settings)
    opens[:] = [open_]
    yield app
    free.append((app, opens))  # not after an error: who knows what it has left


def made(settings: Settings) -> tuple[Litestar, list[Open]]:
    opens: list[Open] = []
    return composition.create_app(settings, lambda settings: opens[0](settings)), opens


@asynccontextmanager
async def temporary_database() -> AsyncIterator[Database]:
    with TemporaryDirectory() as folder:
        url = sqlite_url(Path(folder) / "hermes2.db")
        async with open_database(url, pool_size=4, timeout_s=5, synchronous="normal") as database:
            yield database


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
