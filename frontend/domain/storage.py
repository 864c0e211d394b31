"""What the use cases need from the database, which holds the truth. Adapters implement it (frontend/db).

Everything of a tenant is reached with that tenant's name, and what belongs to another does not exist. Methods raise
NotFound for an id that the tenant does not have, Unavailable when the database is away. What they change is kept when the
unit of work ends without an exception, all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from frontend.domain.api_keys import ApiKey, AuditEntry
from frontend.domain.conversations import Conversation, Page, PageRequest, Session, Trim
from frontend.domain.documents import (
    AttributeFilter,
    AttributeValue,
    EmbeddingPin,
    File,
    FileBatch,
    FoundChunk,
    IngestError,
    IngestJob,
    IngestStatus,
    NewChunk,
    StoreFile,
    VectorStore,
)
from frontend.domain.idempotency import IdempotencyRecord, StoredReply
from frontend.domain.items import Item, StoredItem
from frontend.domain.responses import Response, ResponseEvent
from retrieval.types import Delta, Range


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A running turn: the lease of whoever may write to its conversation and to its response."""

    id: str
    """That of the response or of the chat completion."""
    tenant: str
    conversation_id: str | None
    owner: str
    """The process that runs it (frontend/services/turns.py)."""
    lease_until: float
    """Unix time, seconds; after it the turn is nobody's."""


class StoredCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion that was kept because its request said `store`."""

    id: str
    model: str
    created_at: int
    metadata: Mapping[str, str]
    body: bytes
    """JSON of the completion as the API gave it."""
    messages: bytes
    """JSON list of the request's messages as they were sent."""


class Keys(Protocol):
    async def ensure_tenant(self, tenant: str, now: int) -> None: ...
    async def add(self, tenant: str, key: ApiKey) -> None: ...
    async def find(self, key_id: str) -> ApiKey | None:
        """The one lookup without a tenant: it tells which tenant is asking."""

    async def page(self, tenant: str | None, page: PageRequest) -> Page[ApiKey]:
        """By creation; also those that have expired or were revoked. `tenant`: None: of all."""

    async def hold(self, tenant: str, key_id: str) -> ApiKey:
        """As it is, and nobody else changes it until the unit of work ends. Raises NotFound."""

    async def end(
        self,
        tenant: str,
        key_id: str,
        *,
        expires_at: int | None = None,
        revoked_at: int | None = None,
        replaced_by: str | None = None,
    ) -> ApiKey:
        """Sets what is given; an end that is earlier already stays. Raises NotFound."""

    async def touch(self, used: Mapping[str, int]) -> None:
        """When each key, by its id, was used last. With one statement; what is later already stays."""


class Audit(Protocol):
    """Only grows: the database itself refuses to change or delete entries."""

    async def add(self, entry: AuditEntry) -> None: ...
    async def page(self, tenant: str | None, *, before: int | None, limit: int) -> list[AuditEntry]:
        """The newest first, with ids below `before`. `tenant`: None: of all."""


class IdempotencyKeys(Protocol):
    async def claim(self, tenant: str, record: IdempotencyRecord, now: float) -> IdempotencyRecord | None:
        """None: it is this request's to answer: there was none of this key, or it has expired. Else the one that is there."""

    async def take_over(self, tenant: str, record: IdempotencyRecord, before: IdempotencyRecord) -> bool:
        """From a process that is gone. False if it is not `before` any more."""

    async def renew(self, owner: str, keys: Sequence[tuple[str, str]], lease_until: float) -> None:
        """`keys`: tenants and keys."""

    async def answer(self, tenant: str, key: str, owner: str, reply: StoredReply) -> None:
        """Nothing if it is not this owner's any more."""

    async def give_up(self, tenant: str, key: str, owner: str) -> None:
        """The next request with this key is the first."""

    async def delete_expired(self, now: int, most: int) -> int: ...


class Conversations(Protocol):
    async def add(self, tenant: str, conversation: Conversation, most: int) -> None:
        """Raises QuotaExceeded if the tenant has `most` already."""

    async def get(self, tenant: str, conversation_id: str) -> Conversation: ...
    async def page(self, tenant: str, page: PageRequest, metadata: Mapping[str, str], now: int) -> Page[Conversation]:
        """Those that have not expired and whose metadata hold all of `metadata`, by creation."""

    async def hold(self, tenant: str, conversation_id: str) -> Conversation:
        """As `get`, and nobody else changes it or its items until this unit of work ends."""

    async def update(self, tenant: str, conversation: Conversation) -> None:
        """Its metadata, expiry, context settings and profile; not its items, version or trim."""

    async def set_trim(self, tenant: str, conversation_id: str, before: Trim, after: Trim) -> Conversation | None:
        """The conversation with its new version; None if its trim is not `before` any more."""

    async def append(
        self, tenant: str, conversation_id: str, items: Sequence[Item], *, now: int, most: int
    ) -> Conversation:
        """Gives `items` the next sequence numbers. Raises QuotaExceeded if the conversation would hold over `most`."""

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """With its items, sessions, turns, and the responses that were made in it, and their events."""

    async def delete_expired(self, now: int, most: int) -> list[tuple[str, str]]:
        """Of all tenants, but for those in which a turn is running; their tenants and ids."""


class Items(Protocol):
    """Items of conversations."""

    async def behind(self, tenant: str, conversation_id: str, seq: int) -> list[StoredItem]:
        """All with a greater sequence number, in order."""

    async def between(self, tenant: str, conversation_id: str, *, after: int, upto: int, most: int) -> list[StoredItem]:
        """The first `most` of those with a sequence number greater than `after` and up to `upto`, in order."""

    async def leading(self, tenant: str, conversation_id: str, most: int) -> list[StoredItem]:
        """The first ones, in order."""

    async def page(self, tenant: str, conversation_id: str, page: PageRequest) -> Page[StoredItem]: ...
    async def get(self, tenant: str, conversation_id: str, item_id: str) -> StoredItem: ...
    async def find(self, tenant: str, item_ids: Sequence[str]) -> dict[str, Item]:
        """Those of `item_ids` that the tenant has, in conversations or in responses."""

    async def delete(self, tenant: str, conversation_id: str, item_id: str) -> Conversation: ...


class Responses(Protocol):
    async def add(self, tenant: str, response: Response, input_items: Sequence[Item]) -> None: ...
    async def get(self, tenant: str, response_id: str) -> Response:
        """With its output."""

    async def start(self, tenant: str, response_id: str) -> bool:
        """From queued to in_progress; False if it is not queued any more."""

    async def end(self, tenant: str, response: Response) -> bool:
        """Keeps how it ended, and its output. False, and nothing changed, if it was not running any more, or is gone.

        In a conversation its input and output get the next sequence numbers there, input first, if it is `completed` or
        `incomplete`; what fails or is cancelled leaves the conversation as it was.
        """

    async def input_page(self, tenant: str, response_id: str, page: PageRequest) -> Page[StoredItem]: ...
    async def chain(self, tenant: str, response_id: str) -> list[StoredItem]:
        """Input and output of the response and of all before it, oldest first: one query, whatever the length.

        Raises NotFound if one of them is gone, or is not `completed` or `incomplete`.
        """

    async def delete(self, tenant: str, response_id: str) -> None:
        """With its events, the lease of its turn, and its items unless they are a conversation's."""

    async def add_events(self, tenant: str, response_id: str, events: Sequence[ResponseEvent]) -> None: ...
    async def events(self, tenant: str, response_id: str, after: int) -> list[ResponseEvent]:
        """Those with a greater number, in order."""

    async def delete_events(self, before: int, most: int) -> int:
        """Those of all tenants' responses that were completed before; how many responses there were."""


class Turns(Protocol):
    async def begin(self, turn: Turn, now: float) -> None:
        """Raises ConversationLocked while another turn with a valid lease holds the conversation.

        A turn whose lease has run out is over then, and its response has failed.
        """

    async def end(self, turn: Turn) -> bool:
        """False if the turn is not this owner's any more: nothing may be written then."""

    async def end_orphan(self, turn: Turn) -> bool:
        """False if its lease is not as it was when `turn` was read: somebody has renewed or ended it."""

    async def renew(self, owner: str, turn_ids: Sequence[str], lease_until: float) -> None:
        """All turns that this process runs at once. One that it does not know of runs out."""

    async def running(self) -> list[Turn]:
        """Of all tenants, with valid leases or not."""


class Sessions(Protocol):
    async def add(self, tenant: str, session: Session, most: int) -> None:
        """Raises QuotaExceeded if the tenant has `most` already."""

    async def get(self, tenant: str, session_id: str) -> Session: ...
    async def touch(self, tenant: str, session_id: str, now: int) -> None: ...
    async def delete(self, tenant: str, session_id: str) -> None: ...
    async def delete_expired(self, now: int, most: int) -> int: ...


class Completions(Protocol):
    async def add(self, tenant: str, completion: StoredCompletion) -> None: ...
    async def get(self, tenant: str, completion_id: str) -> StoredCompletion: ...
    async def page(
        self, tenant: str, page: PageRequest, *, model: str | None, metadata: Mapping[str, str]
    ) -> Page[StoredCompletion]: ...
    async def set_metadata(
        self, tenant: str, completion_id: str, metadata: Mapping[str, str], body: bytes
    ) -> StoredCompletion: ...
    async def delete(self, tenant: str, completion_id: str) -> None: ...


class Files(Protocol):
    """Uploaded files. Their bytes are pieces, each kept by a transaction of its own, and there once the file is published."""

    async def begin(self, tenant: str, file: File, *, most_files: int, most_bytes: int) -> None:
        """Nobody sees it yet. Raises QuotaExceeded if the tenant has `most_files`, or `most_bytes` in all with this one's
        `size_bytes` (what the client has announced, or 0)."""

    async def add_piece(self, tenant: str, file_id: str, n: int, body: bytes) -> None:
        """`n`: from 0 on, without gaps."""

    async def publish(
        self,
        tenant: str,
        file_id: str,
        size_bytes: int,
        *,
        most_bytes: int,
        purpose: str | None = None,
        expires_at: int | None = None,
    ) -> File:
        """All of its pieces are there. Raises QuotaExceeded.

        `purpose`, `expires_at`: where they became known behind the bytes; None: as they were when it was begun.
        """

    async def get(self, tenant: str, file_id: str) -> File: ...
    async def find(self, tenant: str, file_ids: Sequence[str]) -> dict[str, File]:
        """Those of `file_ids` that the tenant has, with one statement."""

    async def page(self, tenant: str, page: PageRequest, purpose: str | None) -> Page[File]: ...
    async def piece(self, tenant: str, file_id: str, n: int) -> bytes | None:
        """None behind the last one."""

    async def delete(self, tenant: str, file_id: str) -> None:
        """With its pieces, and out of all vector stores: their logs get a removal each, their chunks are gone."""

    async def delete_expired(self, now: int, begun_before: int, most: int) -> int:
        """Of all tenants; also those that were begun before and never published."""


class VectorStores(Protocol):
    async def add(self, tenant: str, store: VectorStore, most: int) -> None:
        """Raises QuotaExceeded if the tenant has `most` of kind "documents"; memories are not counted.

        A conversation has one memory: a second one raises nothing and changes nothing.
        """

    async def get(self, tenant: str, store_id: str) -> VectorStore:
        """Of kind "documents", with its counts."""

    async def memory(self, tenant: str, conversation_id: str) -> VectorStore | None: ...
    async def delete_memory(self, tenant: str, conversation_id: str) -> None:
        """With its chunks and log, if there is one."""

    async def page(self, tenant: str, page: PageRequest) -> Page[VectorStore]:
        """Of kind "documents", with their counts (one statement for all), by creation; also expired ones."""

    async def update(self, tenant: str, store: VectorStore) -> None:
        """Its name, description, metadata and expiry."""

    async def touch(self, tenant: str, store_id: str, now: int) -> None:
        """It was used: what counts from `last_active_at` begins anew."""

    async def delete(self, tenant: str, store_id: str) -> None:
        """With its files' entries, batches, chunks and log; the files themselves stay."""

    async def delete_expired(self, now: int, most: int) -> list[tuple[str, str]]:
        """Of all tenants; their tenants and ids."""

    async def outdated(self, embedding: EmbeddingPin, most: int) -> list[tuple[str, VectorStore]]:
        """Of all tenants and both kinds: those whose vectors are not of this making; with their tenants."""


class StoreFiles(Protocol):
    """The files of a vector store, and the jobs that put them there."""

    async def add(
        self, tenant: str, store_id: str, files: Sequence[StoreFile], *, most: int, most_waiting: int
    ) -> None:
        """As jobs to be done. One that is in the store already is put in anew: what there is of it is removed.

        Raises NotFound if a file or the store is not there; QuotaExceeded if the store would hold over `most` files, or the
        tenant have over `most_waiting` of them in progress.
        """

    async def get(self, tenant: str, store_id: str, file_id: str) -> StoreFile: ...
    async def page(
        self, tenant: str, store_id: str, page: PageRequest, *, status: IngestStatus | None, batch_id: str | None
    ) -> Page[StoreFile]: ...
    async def set_attributes(
        self, tenant: str, store_id: str, file_id: str, attributes: Mapping[str, AttributeValue]
    ) -> StoreFile: ...
    async def remove(self, tenant: str, store_id: str, file_id: str) -> None:
        """Its chunks are gone, the log gets a removal; a job that runs will find that it is not there any more."""

    async def claim(self, owner: str, now: float, lease_until: float, most: int) -> list[IngestJob]:
        """Of all tenants, the oldest first, in turn between tenants: jobs that nobody works on, or whose lease has run out."""

    async def renew(self, owner: str, lease_until: float) -> None:
        """All jobs of this process at once."""

    async def release(self, job: IngestJob) -> None:
        """It can be claimed again at once, and the attempt does not count: nothing was wrong with the file."""

    async def publish(self, job: IngestJob, chunks: Sequence[NewChunk], usage_bytes: int) -> bool:
        """In one transaction: one contiguous range of the log, status `completed`. False, and nothing changed, if the job is
        not this owner's any more: cancelled, removed, put in anew, or its store deleted or of another generation."""

    async def fail(self, job: IngestJob, error: IngestError) -> bool: ...
    async def owners(self) -> list[str]:
        """Of all jobs that are worked on."""

    async def release_all(self, owner: str) -> int:
        """Jobs of a process that is dead; the attempt counts."""


class FileBatches(Protocol):
    async def add(self, tenant: str, batch: FileBatch) -> None: ...
    async def get(self, tenant: str, store_id: str, batch_id: str) -> FileBatch: ...
    async def cancel(self, tenant: str, store_id: str, batch_id: str) -> None:
        """Its files that are still in progress are cancelled."""


class Chunks(Protocol):
    """The logs of stores, documents and memories alike."""

    async def delta(self, tenant: str, store: VectorStore, after: int, most: int) -> Delta:
        """What stands behind `after`: at most `most` chunks, `upto` saying how far they reach, `store.head` at the end."""

    async def append(self, tenant: str, store_id: str, chunks: Sequence[NewChunk]) -> int:
        """To a memory, in one contiguous range; the new head."""

    async def read(self, tenant: str, store_id: str, seqs: Sequence[int]) -> dict[int, FoundChunk]:
        """Those that are still there, with one statement."""

    async def of_file(self, tenant: str, store_id: str, file_id: str, after: int, most: int) -> list[FoundChunk]:
        """In order, behind the sequence number `after`."""

    async def allowed(self, tenant: str, store_id: str, filters: AttributeFilter) -> list[Range]:
        """Ranges of the completed files whose attributes meet it, in ascending order."""

    async def vacuum(self, tenant: str, store_id: str, keep: int) -> None:
        """Forgets all removals but the newest `keep`, and raises the floor to the newest that is forgotten."""

    async def replace_vectors(
        self, tenant: str, store_id: str, generation: int, vectors: Mapping[int, NDArray[np.float16]]
    ) -> None:
        """Puts vectors, (windows, dim) each, for `generation`, beside those in use, by sequence number. What is there of
        that generation is replaced; chunks that are gone meanwhile are passed over."""

    async def swap(self, tenant: str, store_id: str, generation: int, embedding: EmbeddingPin) -> bool:
        """The store's vectors are those of `generation` from now on, the old ones gone. False, and nothing changed, if a
        chunk has none yet."""


class UnitOfWork(Protocol):
    keys: Keys
    audit: Audit
    idempotency: IdempotencyKeys
    conversations: Conversations
    items: Items
    responses: Responses
    turns: Turns
    sessions: Sessions
    completions: Completions
    files: Files
    vector_stores: VectorStores
    store_files: StoreFiles
    file_batches: FileBatches
    chunks: Chunks


@runtime_checkable
class Database(Protocol):
    def reading(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One snapshot; nothing is kept."""

    def writing(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction, committed at the end unless an exception leaves it."""

    async def check(self) -> bool:
        """Whether the database answers within its deadline."""
