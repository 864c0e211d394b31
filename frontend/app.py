"""The composition root: settings in, an ASGI application out."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.types import ASGIApp

from frontend import settings as settings_module
from frontend.api.admin.controller import AuditController, KeyController
from frontend.api.chat.controller import ChatController
from frontend.api.completions.controller import CompletionController
from frontend.api.conversations.controller import ConversationController, ConversationItemController
from frontend.api.embeddings.controller import EmbeddingController
from frontend.api.files.controller import FileController
from frontend.api.health.controller import HealthController
from frontend.api.metrics.controller import MetricsController
from frontend.api.models.controller import ModelController
from frontend.api.profiles.controller import ProfileController
from frontend.api.responses.controller import ResponseController
from frontend.api.sessions.controller import SessionController
from frontend.api.vector_stores.batches_controller import FileBatchController
from frontend.api.vector_stores.controller import VectorStoreController
from frontend.api.vector_stores.files_controller import StoreFileController
from frontend.http import cors, idempotency, openapi, options
from frontend.http.access_log import AccessLog
from frontend.http.auth import require_key
from frontend.http.body import StrictRequest
from frontend.http.errors import handle
from frontend.http.proxies import Proxies
from frontend.http.tracing import Tracing
from frontend.observability import logging
from frontend.providers import providers
from frontend.runtime import Runtime, open_runtime
from frontend.settings import Settings

CONTROLLERS = [
    ChatController,
    CompletionController,
    ResponseController,
    ConversationController,
    ConversationItemController,
    SessionController,
    FileController,
    ModelController,
    ProfileController,
    HealthController,
    MetricsController,
    KeyController,
    AuditController,
]
WITH_EMBEDDER = [EmbeddingController, VectorStoreController, StoreFileController, FileBatchController]


def create_app(
    settings: Settings, open_: Callable[[Settings], AbstractAsyncContextManager[Runtime]] = open_runtime
) -> Litestar:
    """`open_` opens what the handlers use; tests put fakes there."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with open_(settings) as runtime:
            app.state.runtime = runtime
            yield

    schemas = openapi.StructSchemas()
    app = Litestar.from_config(
        AppConfig(
            route_handlers=[*CONTROLLERS, *(WITH_EMBEDDER if settings.embedder.enabled else [])],
            lifespan=[lifespan],
            dependencies=providers(),
            guards=[require_key],
            middleware=[idempotency.Idempotency()],
            before_request=idempotency.before_request,
            cors_config=cors.config(settings.http.cors_origins),
            request_class=StrictRequest,
            exception_handlers={Exception: handle},
            request_max_body_size=settings.http.max_body,
            openapi_config=openapi.config(),
            plugins=[schemas],
            logging_config=None,
        )
    )
    openapi.complete(app, schemas)
    options.complete(app)
    return app


def asgi() -> ASGIApp:
    """What Granian loads (--factory): the application for this process's environment."""
    settings = settings_module.load()
    logging.configure(settings.log)
    app = create_app(settings)
    app.on_startup.append(freeze_heap)  # after its lifespan has begun
    return AccessLog(Tracing(app), Proxies(settings.http.trusted_proxies))


def freeze_heap() -> None:
    """What there is now stays: the garbage collector need not go through it, for 0.1 s each time, in which nobody is answered."""
    gc.collect()
    gc.freeze()
