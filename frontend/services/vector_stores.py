"""Vector stores: their making, finding, changing, and their end. Their files are put in by frontend/services/store_files.py,
and searched by frontend/services/search.py."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec import UNSET, UnsetType

from frontend.domain import ids
from frontend.domain.conversations import ExpiresAfter, Page, PageRequest
from frontend.domain.documents import Chunking, EmbeddingPin, StoreFile, VectorStore
from frontend.domain.errors import InvalidRequest, NotFound
from frontend.domain.storage import Database, UnitOfWork
from frontend.services.files import has_expired as file_has_expired
from frontend.services.files import missing as missing_file
from frontend.services.resource_ids import could_be
from frontend.settings import RetrievalSettings


class NewStore(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Mapping[str, str]
    name: str = ""
    description: str | None = None
    expires_after: ExpiresAfter | None = None
    file_ids: Sequence[str] = ()
    chunking: Chunking = Chunking()
    """Of these files."""


class StoreChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is unset stays as it is."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    metadata: Mapping[str, str] | UnsetType = UNSET
    expires_after: ExpiresAfter | UnsetType | None = UNSET


DELETED_AT_ONCE = 5_000
"""Entries of its log: a store of 45,000 chunks takes SQLite 9 s in one transaction, for which all other writers wait."""


class VectorStoreService:
    def __init__(
        self,
        database: Database,
        settings: RetrievalSettings,
        *,
        pin: EmbeddingPin,
        forget: Callable[[str, str], Awaitable[None]],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`pin`: how the vectors of new stores are made. `forget`: told of a tenant's store that is gone. `wake`: told that
        there are files to be read."""
        self._database = database
        self._settings = settings
        self._pin = pin
        self._forget = forget
        self._wake = wake
        self._clock = clock

    async def create(self, tenant: str, new: NewStore) -> VectorStore:
        """Raises NotFound (a file), QuotaExceeded."""
        now = int(self._clock())
        store = VectorStore(
            id=ids.new("vs_"),
            name=new.name,
            description=new.description,
            metadata=new.metadata,
            created_at=now,
            last_active_at=now,
            expires_after=new.expires_after,
            embedding=self._pin,
        )
        files = [
            StoreFile(file_id=each, store_id=store.id, created_at=now, chunking=new.chunking)
            for each in dict.fromkeys(new.file_ids)
        ]
        async with self._database.writing() as uow:
            await uow.vector_stores.add(tenant, store, self._settings.stores_per_tenant)
            await self.put(uow, tenant, store.id, files)
            store = await uow.vector_stores.get(tenant, store.id)
        if files:
            self._wake()
        return store

    async def put(
        self, uow: UnitOfWork, tenant: str, store_id: str, files: Sequence[StoreFile], param: str = "file_ids"
    ) -> None:
        """Files into a store, as jobs. `param`: what named them. Raises NotFound, QuotaExceeded."""
        found = await uow.files.find(tenant, [each.file_id for each in files if could_be(each.file_id)])
        now = self._clock()
        for each in files:
            if each.file_id not in found or file_has_expired(found[each.file_id], now):
                raise missing_file(each.file_id, param)
        most, most_waiting = self._settings.files_per_store, self._settings.waiting_per_tenant
        if files:
            await uow.store_files.add(tenant, store_id, files, most=most, most_waiting=most_waiting)

    async def page(self, tenant: str, page: PageRequest) -> Page[VectorStore]:
        """Raises InvalidRequest (the place to go on from)."""
        async with self._database.reading() as uow:
            return await uow.vector_stores.page(tenant, page)

    async def get(self, tenant: str, store_id: str) -> VectorStore:
        """Also one that has expired. Raises NotFound."""
        async with self._database.reading() as uow:
            return await self.find(uow, tenant, store_id)

    async def update(self, tenant: str, store_id: str, change: StoreChange) -> VectorStore:
        """Raises NotFound, InvalidRequest (it has expired)."""
        async with self._database.writing() as uow:
            store = changed(await self.find_alive(uow, tenant, store_id), change)
            await uow.vector_stores.update(tenant, store)
            await uow.vector_stores.touch(tenant, store_id, int(self._clock()))
            return await uow.vector_stores.get(tenant, store_id)

    async def delete(self, tenant: str, store_id: str) -> None:
        """Its files stay. Raises NotFound. A large store is emptied file by file first; it is whole no more if that is cut."""
        store = await self.get(tenant, store_id)
        if store.head > DELETED_AT_ONCE:
            await self._empty(tenant, store_id)
        async with self._database.writing() as uow:
            await self.find(uow, tenant, store_id)
            await uow.vector_stores.delete(tenant, store_id)
        await self._forget(tenant, store_id)

    async def _empty(self, tenant: str, store_id: str) -> None:
        page = PageRequest(limit=100, order="asc")
        while True:
            async with self._database.reading() as uow:
                found = await uow.store_files.page(tenant, store_id, page, status=None, batch_id=None)
            for file in found.data:
                with suppress(NotFound):  # somebody else has removed it
                    async with self._database.writing() as uow:
                        await uow.store_files.remove(tenant, store_id, file.file_id)
            if not found.has_more:
                return

    async def find(self, uow: UnitOfWork, tenant: str, store_id: str) -> VectorStore:
        """Raises NotFound: in the same words, whether it was never there, is gone, or is another's."""
        if could_be(store_id):
            with suppress(NotFound):
                return await uow.vector_stores.get(tenant, store_id)
        raise NotFound(f"No vector store found with id {store_id!r}.")

    async def find_alive(self, uow: UnitOfWork, tenant: str, store_id: str) -> VectorStore:
        """Raises NotFound, InvalidRequest."""
        store = await self.find(uow, tenant, store_id)
        if self.has_expired(store):
            raise InvalidRequest(f"The vector store {store_id!r} has expired.", code="vector_store_expired")
        return store

    def has_expired(self, store: VectorStore) -> bool:
        return store.expires_at is not None and store.expires_at <= self._clock()


def changed(before: VectorStore, change: StoreChange) -> VectorStore:
    sent = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not UNSET}
    return msgspec.structs.replace(before, **sent)
