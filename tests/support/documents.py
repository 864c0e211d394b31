"""Files, vector stores and chunks, as tests want them: only what matters to the test is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frontend.domain.documents import EmbeddingPin, File, FileBatch, IngestJob, NewChunk, StoreFile, VectorStore
from frontend.domain.storage import Database
from retrieval.types import Delta
from tests.support.records import FAR, MOST, NOW

DIMENSIONS = 4
PIN = EmbeddingPin(model="m", digest="d", dimensions=DIMENSIONS, window_tokens=8)
OTHER_PIN = EmbeddingPin(model="m2", digest="d2", dimensions=2, window_tokens=8)
MOST_BYTES = 10**9
OWNER = "process 1"


def file(file_id: str = "file_1", **fields: Any) -> File:
    given = {"filename": f"{file_id}.txt", "purpose": "assistants", "size_bytes": 3, "created_at": NOW, **fields}
    return File(id=file_id, **given)


def store(store_id: str = "vs_1", **fields: Any) -> VectorStore:
    given = {"metadata": {}, "created_at": NOW, "last_active_at": NOW, "embedding": PIN, **fields}
    return VectorStore(id=store_id, **given)


def memory(store_id: str = "vs_memory", conversation_id: str = "conv_1", **fields: Any) -> VectorStore:
    return store(store_id, kind="memory", conversation_id=conversation_id, **fields)


def store_file(file_id: str = "file_1", store_id: str = "vs_1", **fields: Any) -> StoreFile:
    return StoreFile(**{"file_id": file_id, "store_id": store_id, "created_at": NOW, **fields})


def batch(batch_id: str = "vsfb_1", store_id: str = "vs_1", **fields: Any) -> FileBatch:
    return FileBatch(**{"id": batch_id, "store_id": store_id, "created_at": NOW, **fields})


def vectors(windows: int = 1, dimensions: int = DIMENSIONS, value: float = 0.5) -> NDArray[np.float16]:
    return np.full((windows, dimensions), value, np.float16)


def chunk(text: str = "text", start: int = 0, windows: int = 1) -> NewChunk:
    return NewChunk(text=text, start=start, end=start + len(text), vectors=vectors(windows))


def chunks(*texts: str) -> list[NewChunk]:
    return [chunk(text) for text in texts]


async def add_files(database: Database, *file_ids: str, tenant: str = "a", body: bytes = b"abc", **fields: Any) -> None:
    """Published ones, of one piece."""
    async with database.writing() as uow:
        for file_id in file_ids:
            await uow.files.begin(tenant, file(file_id, **fields), most_files=MOST, most_bytes=MOST_BYTES)
            await uow.files.add_piece(tenant, file_id, 0, body)
            await uow.files.publish(tenant, file_id, len(body), most_bytes=MOST_BYTES)


async def add_store(database: Database, store_id: str = "vs_1", tenant: str = "a", **fields: Any) -> None:
    async with database.writing() as uow:
        await uow.vector_stores.add(tenant, store(store_id, **fields), MOST)


async def put_in(database: Database, *file_ids: str, store_id: str = "vs_1", tenant: str = "a", **fields: Any) -> None:
    """As jobs that nobody works on."""
    new = [store_file(file_id, store_id, **fields) for file_id in file_ids]
    async with database.writing() as uow:
        await uow.store_files.add(tenant, store_id, new, most=MOST, most_waiting=MOST)


async def claim(
    database: Database, most: int = MOST, owner: str = OWNER, now: float = NOW, lease_until: float = FAR
) -> list[IngestJob]:
    async with database.writing() as uow:
        return await uow.store_files.claim(owner, now, lease_until, most)


async def publish(database: Database, job: IngestJob, new: Sequence[NewChunk], usage_bytes: int = 10) -> bool:
    async with database.writing() as uow:
        return await uow.store_files.publish(job, new, usage_bytes)


async def with_chunks(database: Database, texts: Mapping[str, Sequence[str]], **fields: Any) -> None:
    """vs_1 of tenant a with these files, each completed with its texts, in their order. `fields`: of the store."""
    await add_files(database, *texts)
    await add_store(database, **fields)
    for file_id, its in texts.items():
        await put_in(database, file_id)
        (job,) = await claim(database)
        assert await publish(database, job, chunks(*its))


async def read_store(database: Database, store_id: str = "vs_1", tenant: str = "a") -> VectorStore:
    async with database.reading() as uow:
        return await uow.vector_stores.get(tenant, store_id)


async def read_delta(database: Database, after: int, most: int = MOST, store_id: str = "vs_1") -> Delta:
    """Of the store as it is now."""
    async with database.reading() as uow:
        return await uow.chunks.delta("a", await uow.vector_stores.get("a", store_id), after, most)


def told(delta: Delta) -> tuple[list[tuple[int, int]], list[tuple[int, str]], int]:
    """What it removes, what it adds, how far it reaches."""
    return list(delta.removed), [(each.seq, each.text) for each in delta.added], delta.upto
