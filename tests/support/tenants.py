"""The whole frontend for two tenants in one process, and a client that leaves when it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
from openai import AsyncOpenAI

from frontend.domain.ports import Embedder, Engine
from frontend.domain.principal import Principal
from frontend.domain.storage import Database
from frontend.runtime import Runtime
from frontend.services.keys.authentication import ApiKeyService
from tests.support.app import client_for

OURS, THEIRS = "ours", "theirs"


class KeysAreTenants(ApiKeyService):
    """The API key `ours` is that of the tenant of this name; `ours+concise` is one with a profile."""

    def __init__(self) -> None:
        pass

    async def authenticate(self, authorization: str | None) -> Principal:
        tenant, _, profile = (authorization or "").removeprefix("Bearer ").partition("+")
        return Principal(key_id="key", tenant=tenant, scopes=frozenset({"admin"}), profile=profile or None)


class Api(msgspec.Struct, frozen=True):
    app: Any
    """ASGI."""
    runtime: Runtime
    ours: httpx.AsyncClient
    theirs: httpx.AsyncClient
    sdk: AsyncOpenAI
    """Of `ours`; raises on any body that is not as its types say."""


@asynccontextmanager
async def api_for(
    engine: Engine, model: Path, database: Database, embedder: Embedder | None = None, **variables: str
) -> AsyncIterator[Api]:
    """`variables`: settings without their prefix."""
    async with client_for(engine, model, None, embedder, database, None, **variables) as connected:
        app = cast(Any, connected._transport).app
        state = app._app.state
        state.runtime = msgspec.structs.replace(state.runtime, api_keys=KeysAreTenants())
        async with client(app, OURS) as ours, client(app, THEIRS) as theirs:
            yield Api(app=app, runtime=state.runtime, ours=ours, theirs=theirs, sdk=strict_sdk(ours))


def client(app: Any, key: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://hermes2", headers={"authorization": f"Bearer {key}"})


def strict_sdk(http: httpx.AsyncClient) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key=OURS,
        base_url="http://hermes2/v1",
        http_client=http,  # type: ignore[arg-type]  # the SDK takes httpx as well as its successor
        max_retries=0,
        _strict_response_validation=True,
    )


class Visitor:
    """Posts `body`, hears the reply as it comes, and leaves when `left` is set."""

    def __init__(
        self, path: str, body: Mapping[str, object], key: str = OURS, headers: Mapping[str, str] | None = None
    ) -> None:
        self.left = asyncio.Event()
        self._heard = asyncio.Event()
        self._sent: list[Any] = []
        self._requests = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"authorization", f"Bearer {key}".encode()),
                (b"content-type", b"application/json"),
                *((name.encode(), value.encode()) for name, value in (headers or {}).items()),
            ],
            "server": ("hermes2", 80),
            "client": ("127.0.0.1", 1),
        }

    async def visit(self, app: Any) -> None:
        async with asyncio.timeout(10):
            await app(self._scope, self._receive, self._send)

    async def hears(self, text: str) -> None:
        """Returns when it has."""
        async with asyncio.timeout(10):
            while text not in self.heard:
                self._heard.clear()
                await self._heard.wait()

    @property
    def heard(self) -> str:
        return b"".join(message["body"] for message in self._sent if "body" in message).decode()

    async def _receive(self) -> Any:
        if self._requests:
            return self._requests.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self._sent.append(message)
        self._heard.set()
