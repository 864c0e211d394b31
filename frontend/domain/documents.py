"""Files, the vector stores that they are put into, and what of them can be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from frontend.domain.conversations import ExpiresAfter

StoreKind = Literal["documents", "memory"]
IngestStatus = Literal["in_progress", "completed", "cancelled", "failed"]
AttributeValue = str | float | bool
"""Numbers are kept as floats, as OpenAI does."""
IngestErrorCode = Literal["server_error", "unsupported_file", "invalid_file"]


class File(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    filename: str
    purpose: str
    size_bytes: int
    created_at: int
    """Unix time, seconds, as every time here."""
    expires_at: int | None = None


class EmbeddingPin(msgspec.Struct, frozen=True, kw_only=True):
    """How a store's vectors were made: those of another making cannot be compared with them."""

    model: str
    digest: str
    """Of the model's files."""
    dimensions: int
    window_tokens: int
    """Tokens of the embedding model that one vector stands for, at most."""


class Chunking(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's static strategy; `auto` is its default."""

    max_chunk_tokens: int = 800
    chunk_overlap_tokens: int = 400


class FileCounts(msgspec.Struct, frozen=True, kw_only=True):
    in_progress: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.cancelled + self.failed


class VectorStore(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: StoreKind = "documents"
    conversation_id: str | None = None
    """Whose memory it is."""
    name: str = ""
    description: str | None = None
    metadata: Mapping[str, str]
    created_at: int
    last_active_at: int
    expires_after: ExpiresAfter | None = None
    embedding: EmbeddingPin
    generation: int = 0
    """Raised when all vectors are replaced (a new embedding model): an index of another generation is worth nothing."""
    head: int = 0
    """The sequence number of the newest entry of its log: a chunk, or a removal."""
    floor: int = 0
    """Removals up to here are forgotten: an index that has applied something, but less than this, is built anew."""
    usage_bytes: int = 0
    """Of texts and vectors of its completed files."""
    counts: FileCounts = FileCounts()

    @property
    def expires_at(self) -> int | None:
        if self.expires_after is None:
            return None
        anchor = self.created_at if self.expires_after.anchor == "created_at" else self.last_active_at
        return anchor + self.expires_after.seconds


class IngestError(msgspec.Struct, frozen=True):
    code: IngestErrorCode
    message: str


class StoreFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a vector store: first a job that is to be done, then a range of its log."""

    file_id: str
    store_id: str
    created_at: int
    status: IngestStatus = "in_progress"
    error: IngestError | None = None
    attributes: Mapping[str, AttributeValue] = {}
    chunking: Chunking = Chunking()
    batch_id: str | None = None
    usage_bytes: int = 0
    filename: str = ""
    """The file's, for those who read; not kept with it."""


class FileBatch(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    store_id: str
    created_at: int
    cancelled: bool = False
    counts: FileCounts = FileCounts()


class IngestJob(msgspec.Struct, frozen=True, kw_only=True):
    """A file that this process is to read, cut, embed and publish, and that nobody else works on meanwhile."""

    tenant: str
    store_id: str
    file: File
    chunking: Chunking
    embedding: EmbeddingPin
    attempt: int
    """From 1 on: more than one if a process has died over it."""
    owner: str
    ticket: int = 0
    """Of this claim: who has lost the job and claimed it again is another one."""


class NewChunk(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    start: int
    """In a file: the first character's place in its text. In a memory: the sequence number of the first item."""
    end: int
    """Behind the last character; in a memory, the last item."""
    vectors: NDArray[np.float16]
    """(windows, dim) float16, L2-normalised."""


class FoundChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk as it is read again, without its vectors."""

    seq: int
    file_id: str | None
    filename: str
    attributes: Mapping[str, AttributeValue]
    text: str
    start: int
    end: int


class Comparison(msgspec.Struct, frozen=True, tag_field="kind", tag="comparison"):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: AttributeValue | Sequence[str | float]


class Compound(msgspec.Struct, frozen=True, tag_field="kind", tag="compound"):
    type: Literal["and", "or"]
    filters: Sequence[Comparison | Compound]


AttributeFilter = Comparison | Compound
"""A file without the attribute meets `ne` and `nin`, and nothing else. Values of different types are never equal."""
