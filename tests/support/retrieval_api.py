"""/v1/files and /v1/vector_stores over a real database, real indexes and real ingest, for two tenants, with a clock that
stands still and an embedder to whom texts are as alike as the words that they share."""

from __future__ import annotations

import asyncio
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

from frontend.api.files.controller import FileController
from frontend.api.vector_stores.batches_controller import FileBatchController
from frontend.api.vector_stores.controller import VectorStoreController
from frontend.api.vector_stores.files_controller import StoreFileController
from frontend.domain import model_card
from frontend.domain.documents import EmbeddingPin
from frontend.domain.embedding import card as embedding_card
from frontend.domain.embedding.encoder import EmbeddingEncoder
from frontend.domain.errors import ParseFailed
from frontend.domain.principal import Principal
from frontend.domain.storage import Database
from frontend.http import openapi
from frontend.http.body import StrictRequest
from frontend.http.errors import handle
from frontend.services.embeddings import EmbeddingService
from frontend.services.expiry import Expiry
from frontend.services.files import FileService
from frontend.services.ingest import IngestService
from frontend.services.models import ModelService
from frontend.services.search import SearchService
from frontend.services.store_files import StoreFileService
from frontend.services.vector_stores import VectorStoreService
from frontend.settings import RetrievalSettings, Settings
from retrieval.catalog import Catalog
from tests.fakes.words import WordsEmbedder
from tests.support.conversations import OURS, THEIRS, Clock, client
from tests.support.tenants import strict_sdk

FILES, STORES = "/v1/files", "/v1/vector_stores"
MAX_BODY = 2**20


class PlainParser:
    """Files are UTF-8, or cannot be read."""

    async def parse(self, filename: str, path: Path) -> str:
        try:
            return path.read_bytes().decode()  # noqa: ASYNC240  # small, and on a disk
        except UnicodeDecodeError as exc:
            raise ParseFailed("This is no text.", code="unsupported_file") from exc


class Api(msgspec.Struct, frozen=True):
    """`ours` and `theirs` are HTTP clients of two tenants."""

    app: Litestar
    ours: httpx.AsyncClient
    theirs: httpx.AsyncClient
    sdk: AsyncOpenAI
    """Of `ours`; raises on any body that is not as its types say."""
    clock: Clock
    database: Database
    catalog: Catalog
    ingest: IngestService
    expiry: Expiry


@asynccontextmanager
async def api_for(
    database: Database, model: Path, embedder: Path, pin: EmbeddingPin | None = None, **limits: Any
) -> AsyncIterator[Api]:
    """`limits`: fields of RetrievalSettings. `pin`: of new stores, if not the embedder's own."""
    retrieval = msgspec.structs.replace(RetrievalSettings(), **limits)
    settings = msgspec.structs.replace(Settings(), retrieval=retrieval)
    clock, catalog = Clock(), Catalog(2**28)
    with ThreadPoolExecutor(1) as threads:
        card = embedding_card.read(embedder, "hermes-2-embedder")
        models = ModelService(model_card.read(model), 512, card)
        encoder = EmbeddingEncoder.from_folder(embedder)
        embeddings = EmbeddingService(models, card, encoder, WordsEmbedder(), threads, 8192)
        search = SearchService(database, embeddings, catalog, threads, clock)
        ingest = IngestService(database, embeddings, PlainParser(), retrieval, clock=clock)
        stores = VectorStoreService(
            database, retrieval, pin=pin or embeddings.pin, forget=search.forget, wake=ingest.wake, clock=clock
        )
        app = application(
            files=FileService(database, retrieval, clock),
            vector_stores=stores,
            store_files=StoreFileService(database, stores, wake=ingest.wake, clock=clock),
            search=search,
            settings=settings,
        )
        async with client(app, OURS) as ours, client(app, THEIRS) as theirs:
            yield Api(
                app=app,
                ours=ours,
                theirs=theirs,
                sdk=strict_sdk(ours),
                clock=clock,
                database=database,
                catalog=catalog,
                ingest=ingest,
                expiry=Expiry(database, events_s=3600, forget=search.forget, forget_store=search.forget, clock=clock),
            )


def application(**provided: object) -> Litestar:
    """The routes with `provided` as their dependencies. The API key is the tenant's name."""

    def name_tenant(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        tenant = connection.headers["authorization"].removeprefix("Bearer ")
        connection.scope["user"] = Principal(key_id="key", tenant=tenant, scopes=frozenset({"admin"}))

    def provider(value: object) -> Provide:
        return Provide(lambda: value, sync_to_thread=False)

    schemas = openapi.StructSchemas()
    app = Litestar.from_config(
        AppConfig(
            route_handlers=[FileController, VectorStoreController, StoreFileController, FileBatchController],
            dependencies={name: provider(value) for name, value in provided.items()},
            guards=[name_tenant],
            request_class=StrictRequest,
            exception_handlers={Exception: handle},
            request_max_body_size=MAX_BODY,
            openapi_config=openapi.config(),
            plugins=[schemas],
            logging_config=None,
        )
    )
    openapi.complete(app, schemas)
    return app


async def upload(api: Api, text: str = "Hello", name: str = "note.txt", **fields: str) -> str:
    """The id of a new file of ours."""
    response = await api.ours.post(
        FILES, data={"purpose": "assistants", **fields}, files={"file": (name, text.encode())}
    )
    assert response.status_code == 200, response.text
    file_id: str = response.json()["id"]
    return file_id


async def make(api: Api, **body: object) -> dict[str, Any]:
    response = await api.ours.post(STORES, json=body)
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


async def ingested(api: Api, store_id: str) -> dict[str, Any]:
    """The store when none of its files is in progress any more."""
    async with asyncio.timeout(30), api.ingest.running():
        while True:
            store: dict[str, Any] = (await api.ours.get(f"{STORES}/{store_id}")).json()
            if store["file_counts"]["in_progress"] == 0:
                return store


async def filled(api: Api, texts: dict[str, str], **body: object) -> tuple[str, list[str]]:
    """A store of ours with these files, by their names, all completed; and their ids."""
    file_ids = [await upload(api, text, name) for name, text in texts.items()]
    store = await make(api, file_ids=file_ids, **body)
    assert (await ingested(api, store["id"]))["file_counts"]["completed"] == len(texts)
    return store["id"], file_ids


async def searched(api: Api, store_id: str, query: str, **more: object) -> list[str]:
    """Names of the files that were found, the best first."""
    response = await api.ours.post(f"{STORES}/{store_id}/search", json={"query": query, **more})
    assert response.status_code == 200, response.text
    return [each["filename"] for each in response.json()["data"]]
