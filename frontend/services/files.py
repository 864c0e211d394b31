"""Uploaded files: in piece by piece, out piece by piece. What is in them is read elsewhere (frontend/services/ingest.py)."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec

from frontend.domain import ids
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.documents import File
from frontend.domain.errors import NotFound, ServiceError, TooLarge
from frontend.domain.storage import Database, UnitOfWork
from frontend.services.resource_ids import could_be
from frontend.settings import RetrievalSettings

PIECE_BYTES = 2**20
MOST_NAME_CHARS = 255
NAMELESS = "file"


class Content(msgspec.Struct, frozen=True):
    file: File
    pieces: AsyncGenerator[bytes, None]
    """Each is a unit of work of its own: the client may be slow. Raises NotFound if the file is deleted meanwhile."""


class Upload:
    """A file that is coming. Holds one piece of it at a time."""

    def __init__(self, database: Database, settings: RetrievalSettings, tenant: str, file: File) -> None:
        self._database = database
        self._settings = settings
        self._tenant = tenant
        self._file = file
        self._waiting = bytearray()
        self._pieces = 0
        self._size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Raises TooLarge, Unavailable."""
        self._size_bytes += len(data)
        if self._size_bytes > self._settings.max_file:
            raise TooLarge(f"The file is too large: at most {self._settings.max_file} bytes.", param="file")
        self._waiting += data
        while len(self._waiting) >= PIECE_BYTES:
            await self._keep(bytes(self._waiting[:PIECE_BYTES]))
            del self._waiting[:PIECE_BYTES]

    async def finish(self, purpose: str, expires_after_s: int | None) -> File:
        """From now on it is there. Raises QuotaExceeded, Unavailable."""
        if self._waiting:
            await self._keep(bytes(self._waiting))
        expires_at = None if expires_after_s is None else self._file.created_at + expires_after_s
        async with self._database.writing() as uow:
            return await uow.files.publish(
                self._tenant,
                self._file.id,
                self._size_bytes,
                most_bytes=self._settings.bytes_per_tenant,
                purpose=purpose,
                expires_at=expires_at,
            )

    async def _keep(self, piece: bytes) -> None:
        async with self._database.writing() as uow:
            await uow.files.add_piece(self._tenant, self._file.id, self._pieces, piece)
        self._pieces += 1


class FileService:
    def __init__(self, database: Database, settings: RetrievalSettings, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock

    @asynccontextmanager
    async def uploading(self, tenant: str, filename: str, announced_bytes: int) -> AsyncIterator[Upload]:
        """Nothing of it stays if an exception leaves this. `announced_bytes`: at most so many will come, or 0.

        Raises QuotaExceeded, Unavailable.
        """
        file = File(
            id=ids.new("file-"),
            filename=shown(filename),
            purpose="",  # a form may tell it last
            size_bytes=announced_bytes,
            created_at=int(self._clock()),
        )
        most_files, most_bytes = self._settings.files_per_tenant, self._settings.bytes_per_tenant
        async with self._database.writing() as uow:
            await uow.files.begin(tenant, file, most_files=most_files, most_bytes=most_bytes)
        try:
            yield Upload(self._database, self._settings, tenant, file)
        except BaseException:
            with suppress(ServiceError):  # the sweeper takes what is left
                async with self._database.writing() as uow:
                    await uow.files.delete(tenant, file.id)
            raise

    async def get(self, tenant: str, file_id: str) -> File:
        """Raises NotFound."""
        async with self._database.reading() as uow:
            return await self._find(uow, tenant, file_id)

    async def page(self, tenant: str, page: PageRequest, purpose: str | None) -> Page[File]:
        """Raises InvalidRequest (the place to go on from)."""
        async with self._database.reading() as uow:
            found = await uow.files.page(tenant, page, purpose)
        return Page([file for file in found.data if not self._has_expired(file)], found.has_more)

    async def content(self, tenant: str, file_id: str) -> Content:
        """Raises NotFound."""
        file = await self.get(tenant, file_id)
        return Content(file, self._pieces(tenant, file))

    async def delete(self, tenant: str, file_id: str) -> None:
        """Out of all vector stores too. Raises NotFound."""
        async with self._database.writing() as uow:
            await self._find(uow, tenant, file_id)
            await uow.files.delete(tenant, file_id)

    async def _pieces(self, tenant: str, file: File) -> AsyncGenerator[bytes, None]:
        for number in range(-(-file.size_bytes // PIECE_BYTES)):
            async with self._database.reading() as uow:
                piece = await uow.files.piece(tenant, file.id, number)
            if piece is None:
                raise missing(file.id)
            yield piece

    async def _find(self, uow: UnitOfWork, tenant: str, file_id: str) -> File:
        if could_be(file_id):
            with suppress(NotFound):
                file = await uow.files.get(tenant, file_id)
                if not self._has_expired(file):
                    return file
        raise missing(file_id)

    def _has_expired(self, file: File) -> bool:
        return has_expired(file, self._clock())


def has_expired(file: File, now: float) -> bool:
    return file.expires_at is not None and file.expires_at <= now


def missing(file_id: str, param: str | None = None) -> NotFound:
    return NotFound(f"No file found with id {file_id!r}.", param=param)


def shown(filename: str) -> str:
    """A file's name for people to read: its last part, without what is invisible or turns the line around."""
    last = re.split(r"[/\\]", filename)[-1]
    visible = "".join(each for each in last if not unicodedata.category(each).startswith("C")).strip()
    return shortened(visible) if visible.strip(".") else NAMELESS


def shortened(name: str) -> str:
    """The ending stays: it tells what kind of file it is."""
    if len(name) <= MOST_NAME_CHARS:
        return name
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending) > 16:
        return name[:MOST_NAME_CHARS]
    return stem[: MOST_NAME_CHARS - len(ending) - 1] + dot + ending
