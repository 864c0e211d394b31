"""Ingest over a real database and the real tokenizer, with an embedder that is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from frontend.domain.documents import StoreFile
from frontend.domain.embedding import card
from frontend.domain.embedding.encoder import EmbeddingEncoder
from frontend.domain.ports import Embedder, Parser
from frontend.domain.storage import Database
from frontend.services.embeddings import EmbeddingService
from frontend.services.ingest import IngestService
from frontend.services.models import ModelService
from frontend.services.parsing import FileParser
from frontend.settings import RetrievalSettings


def embeddings_of(folder: Path, embedder: Embedder, threads: ThreadPoolExecutor) -> EmbeddingService:
    """`folder`: of the embedding model, of which only the tokenizer is used."""
    no_models = cast("ModelService", None)  # only /v1/embeddings asks it
    read = card.read(folder, "all-MiniLM-L6-v2")
    return EmbeddingService(no_models, read, EmbeddingEncoder.from_folder(folder), embedder, threads, 8192)


def service_of(
    database: Database,
    embeddings: EmbeddingService,
    *,
    parser: Parser | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    **settings: Any,
) -> IngestService:
    retrieval = RetrievalSettings(**settings)
    return IngestService(database, embeddings, parser or FileParser(retrieval), retrieval, sleep=sleep)


async def ended(
    database: Database, *file_ids: str, store_id: str = "vs_1", tenant: str = "a", timeout_s: float = 60
) -> list[StoreFile]:
    """Waits until none of them is in progress."""
    async with asyncio.timeout(timeout_s):
        while True:
            async with database.reading() as uow:
                found = [await uow.store_files.get(tenant, store_id, each) for each in file_ids]
            if all(each.status != "in_progress" for each in found):
                return found
            await asyncio.sleep(0.02)
