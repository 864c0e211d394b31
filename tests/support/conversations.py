"""Conversations and sessions over a real database, for two tenants and with a clock that stands still."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler
from openai import AsyncOpenAI

from frontend import settings as settings_module
from frontend.api.conversations.controller import ConversationController, ConversationItemController
from frontend.api.sessions.controller import SessionController
from frontend.domain import model_card
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.principal import Principal
from frontend.domain.profiles import load
from frontend.domain.seal import Seal
from frontend.domain.storage import Database
from frontend.http import openapi
from frontend.http.access_log import AccessLog
from frontend.http.body import StrictRequest
from frontend.http.errors import handle
from frontend.services.context.builder import ContextBuilder
from frontend.services.conversations import ConversationService
from frontend.services.expiry import Expiry
from frontend.services.lookups import Lookups
from frontend.services.models import ModelService
from frontend.services.previews import Previews
from frontend.services.sessions import SessionService
from frontend.services.tokenize import Tokenizer
from frontend.settings import ConversationSettings
from tests.fakes.hot_state import FakeHotState

PATH = "/v1/conversations"
HELLO = {"role": "user", "content": "Hello"}
OURS, THEIRS = "ours", "theirs"
START = 1_800_000_000.0
WINDOW_TOKENS = 512


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Api(msgspec.Struct, frozen=True):
    """`ours` and `theirs` are HTTP clients of two tenants."""

    ours: httpx.AsyncClient
    theirs: httpx.AsyncClient
    sdk: AsyncOpenAI
    """Of `ours`; raises on any body that is not as its types say."""
    clock: Clock
    database: Database
    sessions: SessionService
    expiry: Expiry
    forgotten: list[tuple[str, str]]
    """What caches were told to drop."""
    page: dict[str, Any]
    """The OpenAPI page."""


@asynccontextmanager
async def api_for(database: Database, model: Path, **limits: int) -> AsyncIterator[Api]:
    """`limits`: fields of ConversationSettings."""
    settings = msgspec.structs.replace(ConversationSettings(), **limits)
    clock, forgotten = Clock(), []
    profiles = load([settings_module.ROOT / "frontend/profiles"])

    async def forget(tenant: str, conversation_id: str) -> None:
        forgotten.append((tenant, conversation_id))

    with ThreadPoolExecutor(1) as threads:
        encoder, renderer = prompting(model)
        models = ModelService(model_card.read(model), WINDOW_TOKENS, None)
        contexts = ContextBuilder(Tokenizer(renderer, threads, 8192), settings_module.ContextSettings())
        previews = Previews(
            database,
            FakeHotState(),
            models,
            profiles,
            contexts,
            Lookups(None, None, settings_module.RetrievalSettings()),
        )
        conversations = ConversationService(
            database, profiles, settings, preview=previews.of, forget=forget, clock=clock
        )
        sessions = SessionService(database, conversations, settings, clock)
        app, page = application(conversations=conversations, sessions=sessions, encoder=encoder, seal=Seal(b"key"))
        async with client(app, OURS) as ours, client(app, THEIRS) as theirs:
            yield Api(
                ours=ours,
                theirs=theirs,
                sdk=AsyncOpenAI(
                    api_key=OURS,
                    base_url="http://hermes2/v1",
                    http_client=ours,  # type: ignore[arg-type]  # the SDK takes httpx as well as its successor
                    max_retries=0,
                    _strict_response_validation=True,
                ),
                clock=clock,
                database=database,
                sessions=sessions,
                expiry=Expiry(database, events_s=settings.events_s, forget=forget, clock=clock),
                forgotten=forgotten,
                page=page,
            )


@functools.cache
def prompting(model: Path) -> tuple[Encoder, PromptRenderer]:
    """Read once: it takes half a second."""
    card = model_card.read(model)
    encoder = Encoder.from_folder(model_card.files_of(model, card))
    return encoder, PromptRenderer(encoder, card.chat, card.raw_bos)


def application(**provided: object) -> tuple[Litestar, dict[str, Any]]:
    """The routes with `provided` as their dependencies, and the OpenAPI page. The API key is the tenant's name."""

    def name_tenant(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        tenant = connection.headers["authorization"].removeprefix("Bearer ")
        connection.scope["user"] = Principal(key_id="key", tenant=tenant, scopes=frozenset({"admin"}))

    def provider(value: object) -> Provide:
        return Provide(lambda: value, sync_to_thread=False)

    schemas = openapi.StructSchemas()
    app = Litestar.from_config(
        AppConfig(
            route_handlers=[ConversationController, ConversationItemController, SessionController],
            dependencies={name: provider(value) for name, value in provided.items()},
            guards=[name_tenant],
            request_class=StrictRequest,
            exception_handlers={Exception: handle},
            request_max_body_size=2**20,
            openapi_config=openapi.config(),
            plugins=[schemas],
            logging_config=None,
        )
    )
    openapi.complete(app, schemas)
    return app, app.openapi_schema.to_schema()


def client(app: Litestar, tenant: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(AccessLog(app), raise_app_exceptions=False)  # type: ignore[arg-type]  # Litestar's types
    headers = {"authorization": f"Bearer {tenant}"}
    return httpx.AsyncClient(transport=transport, base_url="http://hermes2", headers=headers)


def told(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All of a reply but its request id."""
    headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
    return response.status_code, response.content, headers


def error(response: httpx.Response) -> tuple[int, str | None, str | None]:
    """Status, code and param of a failure."""
    envelope = response.json()["error"]
    return response.status_code, envelope["code"], envelope["param"]


async def make(api: Api, **body: object) -> str:
    """The id of a new conversation of ours."""
    response = await api.ours.post(PATH, json=body)
    assert response.status_code == 200, response.text
    conversation_id: str = response.json()["id"]
    return conversation_id


async def texts(api: Api, conversation_id: str, **query: str) -> list[str]:
    """What its messages say, as the list of its items has them."""
    items = (await api.ours.get(f"{PATH}/{conversation_id}/items", params=query)).json()["data"]
    return [item["content"][0]["text"] for item in items]
