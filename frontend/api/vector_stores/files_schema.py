"""The bodies of a vector store's files and of their batches: OpenAI's."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from frontend.api.vector_stores.schema import Attributes, ChunkingStrategy, FileCountsBody, FileId, StaticChunking
from frontend.domain.documents import IngestErrorCode, IngestStatus

MOST_IN_BATCH = 2000


class CreateStoreFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None


class UpdateStoreFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    attributes: Attributes | None
    """Replaces all that there are; null: none."""


class CreateFileBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`file_ids`, which share attributes and chunking, or `files`, each with its own."""

    file_ids: Annotated[list[FileId], Meta(min_length=1, max_length=MOST_IN_BATCH)] | None = None
    files: Annotated[list[CreateStoreFile], Meta(min_length=1, max_length=MOST_IN_BATCH)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None


class IngestErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    code: IngestErrorCode
    message: str


class StoreFileBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """The file's."""
    object: Literal["vector_store.file"] = "vector_store.file"
    usage_bytes: int
    created_at: int
    """When it was put into the store."""
    vector_store_id: str
    status: IngestStatus
    last_error: IngestErrorBody | None
    chunking_strategy: StaticChunking
    attributes: dict[str, str | float | bool]


class StoreFileList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[StoreFileBody]
    first_id: str
    last_id: str
    has_more: bool


class StoreFileDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: Literal[True] = True


class StoreFileText(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["text"] = "text"
    text: str


class StoreFileContent(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[StoreFileText]
    """What was read of the file: the texts follow one another."""
    has_more: Literal[False] = False
    next_page: None = None


class FileBatchBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: IngestStatus
    """failed: all of its files are."""
    file_counts: FileCountsBody
