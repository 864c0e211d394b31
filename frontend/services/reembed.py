"""New vectors for old texts: after a change of the embedding model, every store is embedded anew, beside the vectors that it
has, which are exchanged in one transaction when all are there. Memories are made anew from their conversations.

Nobody asks for it: a frontend looks for such stores when it starts, and now and then. Several that do the same work waste it,
and harm nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import structlog
from numpy.typing import NDArray

from frontend.domain.documents import VectorStore
from frontend.domain.errors import ServiceError
from frontend.domain.storage import Database
from frontend.services.embeddings import EmbeddingService
from retrieval.chunking import windows
from retrieval.types import Chunk

log = structlog.get_logger("hermes2.reembed")
EVERY_S = 60.0
MOST_STORES = 100
"""That are looked up at a time."""
PAGE_CHUNKS = 64
"""Embedded and kept at a time: about 300 windows, half a minute on one core."""


class ReembedService:
    def __init__(
        self,
        database: Database,
        embeddings: EmbeddingService,
        *,
        remember: Callable[[str, str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`remember`: called with a conversation whose memory is to be made; returns at once."""
        self._database = database
        self._embeddings = embeddings
        self._remember = remember
        self._sleep = sleep

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What was not exchanged at the end is begun anew by the next process."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self) -> None:
        while True:
            try:
                await self.run_once()
            except ServiceError as exc:
                log.warning("reembed_failed", error=exc.code)
            except Exception as exc:  # a defect must not end the rounds
                log.error("reembed_failed", exc_info=exc)
            await self._sleep(EVERY_S)

    async def run_once(self) -> int:
        """How many stores were exchanged, or begun anew. Raises Unavailable, Timeout."""
        async with self._database.reading() as uow:
            outdated = await uow.vector_stores.outdated(self._embeddings.pin, MOST_STORES)
        done = 0
        for tenant, store in outdated:
            log.info("reembed_begun", store=store.id, made_by=store.embedding.model, chunks_upto=store.head)
            if store.conversation_id is None:
                done += await self._store(tenant, store)
            else:
                await self._memory(tenant, store.conversation_id)
                done += 1
        return done

    async def _memory(self, tenant: str, conversation_id: str) -> None:
        """Its vectors are made of more than its texts (services/memory/units.py)."""
        async with self._database.writing() as uow:
            await uow.vector_stores.delete_memory(tenant, conversation_id)
        self._remember(tenant, conversation_id)

    async def _store(self, tenant: str, store: VectorStore) -> bool:
        generation, after = store.generation + 1, 0
        while True:
            async with self._database.reading() as uow:
                delta = await uow.chunks.delta(tenant, store, after, PAGE_CHUNKS)
            if delta.added:
                vectors = await self._vectors(delta.added)
                async with self._database.writing() as uow:
                    await uow.chunks.replace_vectors(tenant, store.id, generation, vectors)
            after = delta.upto
            if after >= store.head:
                break
        async with self._database.writing() as uow:
            swapped = await uow.chunks.swap(tenant, store.id, generation, self._embeddings.pin)
        log.info("reembed_done", store=store.id, swapped=swapped)
        return swapped

    async def _vectors(self, chunks: Sequence[Chunk]) -> dict[int, NDArray[np.float16]]:
        """By sequence number, (windows, dim) each."""
        split = await asyncio.to_thread(self._windows, [chunk.text for chunk in chunks])
        rows = await self._embeddings.vectors([ids for each in split for ids in each], urgent=False)
        vectors = rows.astype(np.float16)
        ends = np.cumsum([len(each) for each in split])
        return {chunk.seq: part for chunk, part in zip(chunks, np.split(vectors, ends[:-1]), strict=True)}

    def _windows(self, texts: Sequence[str]) -> list[list[Sequence[int]]]:
        most = self._embeddings.pin.window_tokens
        return [windows(self._embeddings.tokens(text).ids, most) for text in texts]
