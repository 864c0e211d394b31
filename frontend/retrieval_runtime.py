"""What searches, ingests and remembers, put together: all that needs an embedding model beside /v1/embeddings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from frontend.domain.storage import Database
from frontend.services.embeddings import EmbeddingService
from frontend.services.ingest import IngestService
from frontend.services.memory.service import MemoryService
from frontend.services.parsing import FileParser
from frontend.services.reembed import ReembedService
from frontend.services.search import SearchService
from frontend.services.store_files import StoreFileService
from frontend.services.tokenize import Tokenizer
from frontend.services.vector_stores import VectorStoreService
from frontend.settings import Settings
from retrieval.catalog import Catalog


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    search: SearchService
    ingest: IngestService
    vector_stores: VectorStoreService
    store_files: StoreFileService
    memory: MemoryService
    reembed: ReembedService

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What works in the background, ended in the opposite order."""
        async with AsyncExitStack() as stack:
            for service in (self.reembed, self.memory, self.ingest):
                await stack.enter_async_context(service.running())
            yield


def assemble_retrieval(
    settings: Settings, database: Database, embeddings: EmbeddingService, tokenizer: Tokenizer, threads: Executor
) -> Retrieval:
    """`threads`: where texts are tokenised and indexes are searched."""
    catalog = Catalog(settings.memory.indexes // settings.workers)
    search = SearchService(database, embeddings, catalog, threads)
    ingest = IngestService(database, embeddings, FileParser(settings.retrieval), settings.retrieval)
    stores = VectorStoreService(
        database, settings.retrieval, pin=embeddings.pin, forget=search.forget, wake=ingest.wake
    )
    places = 1 if settings.retrieval.memory_tokens else 0
    memory = MemoryService(database, search, embeddings, tokenizer, threads, places=places)
    return Retrieval(
        search=search,
        ingest=ingest,
        vector_stores=stores,
        store_files=StoreFileService(database, stores, wake=ingest.wake),
        memory=memory,
        reembed=ReembedService(database, embeddings, remember=memory.after_turn),
    )
