"""The files of vector stores, one by one and in batches: they are put in here as jobs, which frontend/services/ingest.py does."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from frontend.domain import ids
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.documents import AttributeValue, Chunking, FileBatch, IngestStatus, StoreFile
from frontend.domain.errors import InvalidRequest, NotFound
from frontend.domain.storage import Database, UnitOfWork
from frontend.services.resource_ids import could_be
from frontend.services.vector_stores import VectorStoreService

TEXT_PAGE = 256
"""Chunks that are read at a time where a file's text is shown: a megabyte, about."""


class NewStoreFile(msgspec.Struct, frozen=True, kw_only=True):
    file_id: str
    attributes: Mapping[str, AttributeValue] = {}
    chunking: Chunking = Chunking()


class StoreFileService:
    def __init__(
        self,
        database: Database,
        stores: VectorStoreService,
        *,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`wake`: told that there are files to be read."""
        self._database = database
        self._stores = stores
        self._wake = wake
        self._clock = clock

    async def add(self, tenant: str, store_id: str, new: NewStoreFile) -> StoreFile:
        """One that is in the store already is put in anew. Raises NotFound, QuotaExceeded, InvalidRequest (it has expired)."""
        async with self._database.writing() as uow:
            await self._put(uow, tenant, store_id, [new], None, "file_id")
            added = await uow.store_files.get(tenant, store_id, new.file_id)
        self._wake()
        return added

    async def get(self, tenant: str, store_id: str, file_id: str) -> StoreFile:
        """Raises NotFound."""
        async with self._database.reading() as uow:
            return await self._find(uow, tenant, store_id, file_id)

    async def page(
        self,
        tenant: str,
        store_id: str,
        page: PageRequest,
        status: IngestStatus | None,
        batch_id: str | None = None,
    ) -> Page[StoreFile]:
        """Raises NotFound, InvalidRequest (the place to go on from)."""
        async with self._database.reading() as uow:
            await self._stores.find(uow, tenant, store_id)
            if batch_id is not None:
                await self._find_batch(uow, tenant, store_id, batch_id)
            return await uow.store_files.page(tenant, store_id, page, status=status, batch_id=batch_id)

    async def set_attributes(
        self, tenant: str, store_id: str, file_id: str, attributes: Mapping[str, AttributeValue]
    ) -> StoreFile:
        """Raises NotFound."""
        async with self._database.writing() as uow:
            await self._find(uow, tenant, store_id, file_id)
            return await uow.store_files.set_attributes(tenant, store_id, file_id, attributes)

    async def remove(self, tenant: str, store_id: str, file_id: str) -> None:
        """The file itself stays. Raises NotFound."""
        async with self._database.writing() as uow:
            await self._find(uow, tenant, store_id, file_id)
            await uow.store_files.remove(tenant, store_id, file_id)

    async def text(self, tenant: str, store_id: str, file_id: str) -> AsyncGenerator[str, None]:
        """What was read of the file, in pieces that follow one another. Raises NotFound, InvalidRequest (not read yet)."""
        file = await self.get(tenant, store_id, file_id)
        if file.status != "completed":
            raise InvalidRequest(f"The file has no content here: it is {file.status}.", code="file_not_completed")
        return self._text(tenant, store_id, file_id)

    async def add_batch(self, tenant: str, store_id: str, new: Sequence[NewStoreFile], param: str) -> FileBatch:
        """All of them or none. `param`: what named them. Raises as `add`."""
        batch = FileBatch(id=ids.new("vsfb_"), store_id=store_id, created_at=int(self._clock()))
        async with self._database.writing() as uow:
            await self._put(uow, tenant, store_id, new, batch, param)
            batch = await uow.file_batches.get(tenant, store_id, batch.id)
        self._wake()
        return batch

    async def batch(self, tenant: str, store_id: str, batch_id: str) -> FileBatch:
        """Raises NotFound."""
        async with self._database.reading() as uow:
            await self._stores.find(uow, tenant, store_id)
            return await self._find_batch(uow, tenant, store_id, batch_id)

    async def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> FileBatch:
        """What is done stays; of one that is over nothing changes. Raises NotFound."""
        async with self._database.writing() as uow:
            await self._stores.find(uow, tenant, store_id)
            batch = await self._find_batch(uow, tenant, store_id, batch_id)
            if not batch.counts.in_progress:
                return batch
            await uow.file_batches.cancel(tenant, store_id, batch_id)
            return await uow.file_batches.get(tenant, store_id, batch_id)

    async def _put(
        self,
        uow: UnitOfWork,
        tenant: str,
        store_id: str,
        new: Sequence[NewStoreFile],
        batch: FileBatch | None,
        param: str,
    ) -> None:
        now = int(self._clock())
        await self._stores.find_alive(uow, tenant, store_id)
        files = [
            StoreFile(
                file_id=each.file_id,
                store_id=store_id,
                created_at=now,
                attributes=each.attributes,
                chunking=each.chunking,
                batch_id=None if batch is None else batch.id,
            )
            for each in new
        ]
        await self._stores.put(uow, tenant, store_id, files, param)
        if batch is not None:
            await uow.file_batches.add(tenant, batch)
        await uow.vector_stores.touch(tenant, store_id, now)

    async def _text(self, tenant: str, store_id: str, file_id: str) -> AsyncGenerator[str, None]:
        """Chunks overlap; nothing is told twice. Each page is a unit of work of its own: the client may be slow."""
        seq, told = 0, 0
        while True:
            async with self._database.reading() as uow:
                chunks = await uow.chunks.of_file(tenant, store_id, file_id, seq, TEXT_PAGE)
            for chunk in chunks:
                if chunk.end > told:
                    yield chunk.text[max(0, told - chunk.start) :]
                    told = chunk.end
            if len(chunks) < TEXT_PAGE:
                return
            seq = chunks[-1].seq

    async def _find(self, uow: UnitOfWork, tenant: str, store_id: str, file_id: str) -> StoreFile:
        await self._stores.find(uow, tenant, store_id)
        if could_be(file_id):
            with suppress(NotFound):
                return await uow.store_files.get(tenant, store_id, file_id)
        raise NotFound(f"No file found with id {file_id!r} in vector store {store_id!r}.")

    async def _find_batch(self, uow: UnitOfWork, tenant: str, store_id: str, batch_id: str) -> FileBatch:
        if could_be(batch_id):
            with suppress(NotFound):
                return await uow.file_batches.get(tenant, store_id, batch_id)
        raise NotFound(f"No file batch found with id {batch_id!r} in vector store {store_id!r}.")
