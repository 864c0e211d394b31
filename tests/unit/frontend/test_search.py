"""Searches of several stores and processes on a real SQLite, with real indexes and an embedder without a model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from frontend.db.database import SqlDatabase
from frontend.domain import ids
from frontend.domain.conversations import Conversation, ExpiresAfter
from frontend.domain.documents import Chunking, Comparison, EmbeddingPin, File, NewChunk, StoreFile, VectorStore
from frontend.domain.embedding import card as embedding_card
from frontend.domain.embedding.encoder import EmbeddingEncoder
from frontend.domain.errors import InvalidRequest, NotFound, Unavailable
from frontend.services.embeddings import EmbeddingService
from frontend.services.models import ModelService
from frontend.services.reembed import ReembedService
from frontend.services.search import Outdated, SearchService, SearchTask, fused
from retrieval.catalog import Catalog
from retrieval.types import Hit
from tests.fakes.embedder import FakeEmbedder

TENANT, NOW = "ours", 1_000
TEXTS = ["The gate of Vellin opens at seven.", "Cats sleep for sixteen hours.", "A lantern costs twelve crowns."]


class Service:
    """One process: its own indexes, a database that others share."""

    def __init__(
        self, database: SqlDatabase, minilm: Path, threads: ThreadPoolExecutor, most_bytes: int = 10**8
    ) -> None:
        card = embedding_card.read(minilm, "all-MiniLM-L6-v2")
        encoder = EmbeddingEncoder.from_folder(minilm)
        self.database = database
        self.embeddings = EmbeddingService(
            ModelService.__new__(ModelService), card, encoder, FakeEmbedder(), threads, 8192
        )
        self.catalog = Catalog(most_bytes)
        self.search = SearchService(database, self.embeddings, self.catalog, threads, clock=lambda: NOW)

    async def store(self, expires_after: ExpiresAfter | None = None, pin: EmbeddingPin | None = None) -> str:
        store = VectorStore(
            id=ids.new("vs_"),
            metadata={},
            created_at=NOW,
            last_active_at=NOW,
            expires_after=expires_after,
            embedding=pin or self.embeddings.pin,
        )
        async with self.database.writing() as uow:
            await uow.vector_stores.add(TENANT, store, most=100)
        return store.id

    async def put(self, store_id: str, *texts: str, **attributes: str) -> str:
        """One file with a chunk for each text."""
        file = File(id=ids.new("file-"), filename="a.txt", purpose="assistants", size_bytes=0, created_at=NOW)
        wanted = StoreFile(
            file_id=file.id, store_id=store_id, created_at=NOW, attributes=attributes, chunking=Chunking()
        )
        async with self.database.writing() as uow:
            await uow.files.begin(TENANT, file, most_files=100, most_bytes=10**9)
            await uow.files.publish(TENANT, file.id, 0, most_bytes=10**9)
            await uow.store_files.add(TENANT, store_id, [wanted], most=100, most_waiting=100)
            (job,) = await uow.store_files.claim("me", NOW, NOW + 60, 1)
        async with self.database.reading() as uow:
            vectors = [await self.vector(text) for text in texts]
        chunks = [
            NewChunk(text=text, start=0, end=len(text), vectors=vector.astype(np.float16)[None])
            for text, vector in zip(texts, vectors, strict=True)
        ]
        async with self.database.writing() as uow:
            assert await uow.store_files.publish(job, chunks, 1)
        return file.id

    async def vector(self, text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        (vector,) = await self.search.query_vectors([text])
        return vector

    async def find(self, query: str, *stores: str, **more: object) -> list[str]:
        task = SearchTask(store_ids=stores, queries=[query], **more)  # type: ignore[arg-type]  # of the caller
        return [each.text for each in await self.search.search(TENANT, task)]


@pytest.fixture
async def services(sqlite_database: SqlDatabase, minilm: Path) -> AsyncIterator[tuple[Service, Service]]:
    """Two processes' worth."""
    with ThreadPoolExecutor(2) as threads:
        yield Service(sqlite_database, minilm, threads), Service(sqlite_database, minilm, threads)


async def test_every_process_sees_every_write(services: tuple[Service, Service]) -> None:
    """What one has published the other finds at once, and what one has removed nobody finds."""
    here, there = services
    store = await here.store()
    assert await there.find("gate", store) == []
    first = await here.put(store, TEXTS[0])
    assert (await there.find("When does the gate open?", store))[0] == TEXTS[0]
    await there.put(store, *TEXTS[1:])
    assert (await here.find("How long do cats sleep?", store))[0] == TEXTS[1]
    async with here.database.writing() as uow:
        await uow.store_files.remove(TENANT, store, first)
    assert TEXTS[0] not in await there.find("When does the gate open?", store)
    assert TEXTS[0] not in await here.find("When does the gate open?", store)


async def test_several_stores_make_one_ranking(services: tuple[Service, Service]) -> None:
    """The best of each, the best of all first, at most k."""
    here, _ = services
    stores = [await here.store(), await here.store()]
    await here.put(stores[0], TEXTS[0])
    await here.put(stores[1], *TEXTS[1:])
    assert await here.find(TEXTS[1], *stores, k=1) == [TEXTS[1]]
    assert set(await here.find(TEXTS[1], *stores, k=10)) == set(TEXTS)


async def test_filters_and_thresholds_leave_out(services: tuple[Service, Service]) -> None:
    """Attributes of the file, and the cosine of the passage."""
    here, _ = services
    store = await here.store()
    await here.put(store, TEXTS[0], lang="en")
    await here.put(store, TEXTS[1], lang="fr")
    assert await here.find("x", store, filters=Comparison("eq", "lang", "fr")) == [TEXTS[1]]
    assert await here.find(TEXTS[0], store, score_threshold=0.9) == [TEXTS[0]]


async def test_an_evicted_index_is_built_again(services: tuple[Service, Service], minilm: Path) -> None:
    """A catalogue with room for one index serves two stores in turn."""
    with ThreadPoolExecutor(2) as threads:
        small = Service(services[0].database, minilm, threads, most_bytes=1)
        stores = [await small.store(), await small.store()]
        for store, text in zip(stores, TEXTS, strict=False):
            await small.put(store, text)
        for _ in range(3):
            for store, text in zip(stores, TEXTS, strict=False):
                assert await small.find(text, store) == [text]
        assert len(small.catalog) == 1


async def test_who_may_not_look_is_told_what_a_stranger_is(services: tuple[Service, Service]) -> None:
    """Another tenant's store is not there; an expired one says so."""
    here, _ = services
    store = await here.store()
    with pytest.raises(NotFound) as foreign:
        await here.search.search("theirs", SearchTask(store_ids=[store], queries=["x"]))
    with pytest.raises(NotFound) as unknown:
        await here.search.search(TENANT, SearchTask(store_ids=["vs_none"], queries=["x"]))
    assert foreign.value.message.replace(store, "") == unknown.value.message.replace("vs_none", "")
    expired = await here.store(ExpiresAfter(anchor="created_at", seconds=-1))
    with pytest.raises(InvalidRequest, match="expired"):
        await here.find("x", expired)


async def test_another_model_embeds_everything_anew(services: tuple[Service, Service]) -> None:
    """Until then a search is refused; then it finds what it found before, in every process."""
    here, there = services
    old = EmbeddingPin(model="old", digest="old", dimensions=here.embeddings.pin.dimensions, window_tokens=100)
    store = await here.store(pin=old)
    await here.put(store, *TEXTS)
    with pytest.raises(Outdated):
        await here.find(TEXTS[0], store)
    assert issubclass(Outdated, Unavailable)
    reembed = ReembedService(here.database, here.embeddings, remember=lambda tenant, conversation_id: None)
    assert await reembed.run_once() == 1
    assert await reembed.run_once() == 0
    for service in services:
        assert (await service.find(TEXTS[2], store))[0] == TEXTS[2]
    assert (await there.find("lantern", store, k=1, vector_weight=0.0)) == [TEXTS[2]]


async def test_a_memory_of_another_model_is_made_anew(services: tuple[Service, Service]) -> None:
    """From its conversation, whose turns its vectors are made of."""
    here, _ = services
    async with here.database.writing() as uow:
        talk = Conversation(id=ids.new("conv_"), metadata={}, created_at=NOW, last_active_at=NOW)
        await uow.conversations.add(TENANT, talk, most=10)
        old = EmbeddingPin(model="old", digest="old", dimensions=384, window_tokens=100)
        memory = VectorStore(
            id=ids.new("vs_"),
            kind="memory",
            conversation_id=talk.id,
            metadata={},
            created_at=NOW,
            last_active_at=NOW,
            embedding=old,
        )
        await uow.vector_stores.add(TENANT, memory, most=1)
    begun: list[tuple[str, str]] = []
    reembed = ReembedService(
        here.database, here.embeddings, remember=lambda tenant, conversation_id: begun.append((tenant, conversation_id))
    )
    assert await reembed.run_once() == 1
    assert begun == [(TENANT, talk.id)]
    async with here.database.reading() as uow:
        assert await uow.vector_stores.memory(TENANT, talk.id) is None


async def test_a_long_query_is_one_vector(services: tuple[Service, Service]) -> None:
    """Of more tokens than the model reads: the mean of its windows, of length 1; an empty one is a vector too."""
    for text in ("word " * 1000, ""):
        vector = await services[0].vector(text)
        assert vector.shape == (384,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_rankings_are_fused_by_rank_and_score() -> None:
    """Found by two queries is before found by one; of equals the closer one is first."""
    one = [("a", Hit(1, 0.4)), ("a", Hit(2, 0.9))]
    two = [("a", Hit(2, 0.8)), ("b", Hit(1, 0.5))]
    assert [(store, hit.seq, hit.score) for store, hit in fused([one, two])] == [
        ("a", 2, 0.9),
        ("a", 1, 0.4),
        ("b", 1, 0.5),
    ]
