"""The frontend in this process, for what its own code costs: an engine with its words ready, and no server, gRPC or Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from litestar.types import ASGIApp

from frontend import settings as settings_module
from frontend.app import create_app
from frontend.db.database import open_database
from frontend.db.engines import sqlite_url
from frontend.domain.conversations import Window
from frontend.domain.generation import ChoiceDelta, GenerationDelta, GenerationRequest
from frontend.observability import tracing
from frontend.runtime import Runtime, assemble
from frontend.services.limits.local import LocalLimiter
from frontend.settings import Settings
from frontend.triton.generation_span import traced
from perf.service import KEY

TOKENS = 32
"""Of each answer."""
CHAT = "/v1/chat/completions"
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Words:
    """An engine that has all its words ready."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        return traced(request, self._generate) if tracing.is_on() else self._generate(request)

    async def _generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        if not request.stream:
            yield GenerationDelta([ChoiceDelta(0, " word" * TOKENS, TOKENS, None, "length")], 0, None)
            return
        for number in range(1, TOKENS + 1):
            finish: Literal["length"] | None = "length" if number == TOKENS else None
            yield GenerationDelta([ChoiceDelta(0, " word", 1, None, finish)], 0, None)

    async def check(self) -> None:
        """It is always there."""

    async def metrics(self) -> str:
        return ""


class Forgetful:
    """A hot state that keeps nothing."""

    async def check(self) -> bool:
        return True

    async def get_window(self, tenant: str, conversation_id: str, version: int) -> Window | None:
        return None

    async def put_window(self, tenant: str, window: Window) -> None: ...

    async def drop_window(self, tenant: str, conversation_id: str) -> None: ...


@asynccontextmanager
async def application(model: Path) -> AsyncIterator[ASGIApp]:
    """The whole frontend but its server, without limits, which would need a Valkey."""
    with TemporaryDirectory() as home:
        plans = Path(home) / "plans.toml"
        plans.write_text("[plans.default.tenant]\n")
        variables = {"HOME": home, "MODEL_DIR": str(model), "API_KEY": KEY, "EMBEDDER_ENABLED": "false"}
        variables["LIMITS_PLANS"] = str(plans)
        settings = settings_module.load({f"HERMES2_{name}": value for name, value in variables.items()})

        @asynccontextmanager
        async def open_(settings: Settings) -> AsyncIterator[Runtime]:
            async with AsyncExitStack() as stack:
                url = sqlite_url(Path(home) / "hermes2.db")
                database = await stack.enter_async_context(open_database(url, pool_size=4, timeout_s=5))
                threads = stack.enter_context(ThreadPoolExecutor(1))
                parts = assemble(
                    settings, Words(), Forgetful(), database, b"pepper" * 6, threads, None, LocalLimiter(1)
                )
                yield await stack.enter_async_context(parts)

        app = create_app(settings, open_)
        async with app.lifespan():
            yield app


def scope_of(body: bytes) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost:11401"),
            (b"accept", b"application/json"),
            (b"content-type", b"application/json"),
            (b"user-agent", b"OpenAI/Python"),
            (b"authorization", f"Bearer {KEY}".encode()),
            (b"content-length", str(len(body)).encode()),
            (b"traceparent", TRACEPARENT),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 11401),
        "state": {},
        "extensions": {},
    }


async def ask(app: ASGIApp, body: bytes) -> None:
    """As a server does, that has the request's bytes already. Raises RuntimeError unless it is answered."""
    received = iter([{"type": "http.request", "body": body, "more_body": False}])
    status = 0

    async def receive() -> Any:
        if (message := next(received, None)) is not None:
            return message
        await asyncio.get_running_loop().create_future()  # the client stays
        raise AssertionError

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope_of(body), receive, send)  # type: ignore[arg-type]  # a server's plain dictionaries
    if status != 200:
        raise RuntimeError(f"it answered {status}")
