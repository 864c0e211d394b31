"""Finding passages in stores: who may look, an index as new as the store, the rankings of several as one.

A search sees every write that was committed before it, in whatever process: the statement that authorises it reads the
store's head too, and an index behind it gets what it lacks first.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray
from prometheus_client import Histogram

from frontend.domain.documents import AttributeFilter, AttributeValue, FoundChunk, VectorStore
from frontend.domain.errors import InvalidRequest, NotFound, Unavailable
from frontend.domain.ports import Indexes
from frontend.domain.storage import Database, UnitOfWork
from frontend.observability import tracing
from frontend.services.embeddings import EmbeddingService
from frontend.services.resource_ids import could_be
from retrieval.fusion import RANK_CONSTANT
from retrieval.types import Gap, Hit, Query, Range, StoreKey

T = TypeVar("T")

STAGES = Histogram("hermes2_search_seconds", "A search by its stages.", ["stage"])
TRIES = 5
"""An index that was evicted while it was needed is built again, so often."""
PAGE_CHUNKS = 4096
"""Of a log, read and applied at a time: 6 MB of vectors and about as much text."""
MOST_STORES = 16
"""In one search."""
TOUCH_EVERY_S = 60
"""A store that expires by its last use is written to at most so often."""


class Outdated(Unavailable):
    """The embedding model is another one now; services/reembed.py is at work."""

    code = "embedding_model_changed"

    def __init__(self, store: VectorStore) -> None:
        super().__init__(
            f"The vectors of {store.id!r} were made by another embedding model ({store.embedding.model}), and are being"
            " made anew. Please try again later.",
            retry_after_s=30.0,
        )


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    store_id: str
    seq: int
    file_id: str | None
    filename: str
    attributes: dict[str, AttributeValue]
    text: str
    start: int
    """Characters of the file's text, as far as `end`."""
    end: int
    score: float
    """0 to 1: the cosine of query and passage, where it is above 0."""


class SearchTask(msgspec.Struct, frozen=True, kw_only=True):
    store_ids: Sequence[str]
    queries: Sequence[str]
    k: int = 10
    filters: AttributeFilter | None = None
    score_threshold: float = 0.0
    vector_weight: float = 1.0
    text_weight: float = 1.0


class Target(msgspec.Struct, frozen=True):
    store: VectorStore
    allowed: Sequence[Range] | None


class SearchService:
    def __init__(
        self,
        database: Database,
        embeddings: EmbeddingService,
        indexes: Indexes,
        executor: Executor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`executor`: where indexes work, away from the event loop."""
        self._database = database
        self._embeddings = embeddings
        self._indexes = indexes
        self._executor = executor
        self._clock = clock
        self._bringing_up: WeakValueDictionary[StoreKey, asyncio.Lock] = WeakValueDictionary()

    async def search(self, tenant: str, task: SearchTask) -> list[Passage]:
        """The best `k` of all stores and queries together, best first. Raises NotFound, InvalidRequest, Unavailable."""
        if len(task.store_ids) > MOST_STORES:
            raise InvalidRequest(f"At most {MOST_STORES} vector stores are searched at once.", param="vector_store_ids")
        async with self._database.reading() as uow:
            targets = [await self._target(uow, tenant, each, task.filters) for each in dict.fromkeys(task.store_ids)]
        vectors = await self.query_vectors(task.queries)
        rankings: list[list[tuple[str, Hit]]] = []
        for target in targets:
            for text, vector in zip(task.queries, vectors, strict=True):
                query = Query(text=text, vector=vector, vector_weight=task.vector_weight, text_weight=task.text_weight)
                hits = await self.hits(tenant, target.store, query, task.k, target.allowed)
                rankings.append([(target.store.id, hit) for hit in hits if hit.score >= task.score_threshold])
        chosen = fused(rankings)[: task.k]
        found = await self._read(tenant, chosen)
        await self._touch(tenant, targets)
        return [
            passage(store_id, hit, found[store_id, hit.seq]) for store_id, hit in chosen if (store_id, hit.seq) in found
        ]

    async def query_vectors(self, queries: Sequence[str]) -> list[NDArray[np.float32]]:
        """(dim,) float32 each. A query that is longer than a window is the mean of its windows."""
        size = self._embeddings.pin.window_tokens
        split = []
        for text in queries:
            ids = self._embeddings.tokens(text).ids
            split.append([ids[start : start + size] for start in range(0, len(ids), size)] or [[]])
        with STAGES.labels("embed").time(), tracing.span("search.embed"):
            rows = iter(await self._embeddings.vectors([window for each in split for window in each], urgent=True))
        return [mean([next(rows) for _ in windows]) for windows in split]

    async def hits(
        self, tenant: str, store: VectorStore, query: Query, k: int, allowed: Sequence[Range] | None
    ) -> list[Hit]:
        """Of one store, as it was when `store` was read, or later. Raises Unavailable."""
        if store.embedding != self._embeddings.pin:
            raise Outdated(store)
        key = StoreKey(tenant, store.id, store.generation)
        for _ in range(TRIES):
            try:
                with STAGES.labels("update").time(), tracing.span("search.update"):
                    await self._bring_up(key, store)
                with STAGES.labels("search").time(), tracing.span("search.find"):
                    return await self._in_thread(partial(self._indexes.search, key, query, k, allowed, head=store.head))
            except Gap:
                continue
        raise Unavailable("There is no room in memory for the index of this vector store.")

    async def forget(self, tenant: str, store_id: str) -> None:
        """The store is gone."""
        await self._in_thread(partial(self._indexes.drop, StoreKey(tenant, store_id)))

    async def _target(self, uow: UnitOfWork, tenant: str, store_id: str, filters: AttributeFilter | None) -> Target:
        if not could_be(store_id):
            raise missing(store_id)
        store = await uow.vector_stores.get(tenant, store_id)
        if store.expires_at is not None and store.expires_at <= self._clock():
            raise InvalidRequest(f"The vector store {store_id!r} has expired.", code="vector_store_expired")
        return Target(store, None if filters is None else await uow.chunks.allowed(tenant, store_id, filters))

    async def _bring_up(self, key: StoreKey, store: VectorStore) -> None:
        """To the store's head, or beyond it. Raises Gap."""
        if self._indexes.applied(key) >= store.head:
            return
        lock = self._bringing_up.setdefault(key, asyncio.Lock())
        async with lock:
            while (applied := self._indexes.applied(key)) < store.head:
                async with self._database.reading() as uow:
                    now = await again(uow, key.tenant, store)
                    if now.generation != key.generation:
                        raise Unavailable("The vectors of this store have just been replaced.")
                    if 0 < applied < now.floor:
                        self._indexes.drop(key)
                        applied = 0
                    delta = await uow.chunks.delta(key.tenant, now, applied, PAGE_CHUNKS)
                await self._in_thread(partial(self._indexes.apply, key, delta))

    async def _read(self, tenant: str, chosen: Sequence[tuple[str, Hit]]) -> dict[tuple[str, int], FoundChunk]:
        """With one statement for each store; what was deleted since is missing."""
        wanted: dict[str, list[int]] = defaultdict(list)
        for store_id, hit in chosen:
            wanted[store_id].append(hit.seq)
        found: dict[tuple[str, int], FoundChunk] = {}
        if wanted:
            async with self._database.reading() as uow:
                for store_id, seqs in wanted.items():
                    read = await uow.chunks.read(tenant, store_id, seqs)
                    found |= {(store_id, seq): chunk for seq, chunk in read.items()}
        return found

    async def _touch(self, tenant: str, targets: Sequence[Target]) -> None:
        now = int(self._clock())
        used = [
            each.store.id
            for each in targets
            if each.store.expires_after is not None and each.store.last_active_at + TOUCH_EVERY_S <= now
        ]
        if used:
            async with self._database.writing() as uow:
                for store_id in used:
                    await uow.vector_stores.touch(tenant, store_id, now)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


async def again(uow: UnitOfWork, tenant: str, store: VectorStore) -> VectorStore:
    """The store as it is in this snapshot. Raises NotFound."""
    if store.conversation_id is None:
        return await uow.vector_stores.get(tenant, store.id)
    memory = await uow.vector_stores.memory(tenant, store.conversation_id)
    if memory is None:
        raise missing(store.id)
    return memory


def fused(rankings: Sequence[Sequence[tuple[str, Hit]]]) -> list[tuple[str, Hit]]:
    """By reciprocal ranks over all rankings, and by score where they are equal, as for the best of two stores."""
    if len(rankings) == 1:
        return list(rankings[0])
    ranks: dict[tuple[str, int], float] = defaultdict(float)
    best: dict[tuple[str, int], Hit] = {}
    for ranking in rankings:
        for place, (store_id, hit) in enumerate(ranking, 1):
            key = store_id, hit.seq
            ranks[key] += 1 / (RANK_CONSTANT + place)
            if key not in best or hit.score > best[key].score:
                best[key] = hit
    order = sorted(best, key=lambda key: (-ranks[key], -best[key].score))
    return [(store_id, best[store_id, seq]) for store_id, seq in order]


def passage(store_id: str, hit: Hit, chunk: FoundChunk) -> Passage:
    return Passage(
        store_id=store_id,
        seq=hit.seq,
        file_id=chunk.file_id,
        filename=chunk.filename,
        attributes=dict(chunk.attributes),
        text=chunk.text,
        start=chunk.start,
        end=chunk.end,
        score=hit.score,
    )


def mean(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if len(vectors) == 1:
        return vectors[0]
    total: NDArray[np.float32] = np.sum(vectors, axis=0, dtype=np.float32)
    length: float = float(np.linalg.norm(total))
    return total / np.float32(length) if length else total


def missing(store_id: str) -> NotFound:
    return NotFound(f"No vector store found with id {store_id!r}.")
