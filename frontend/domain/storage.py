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

from frontend.domain.conversations import Conversation, Page, PageRequest, Session, Trim
from frontend.domain.items import Item, StoredItem
from frontend.domain.responses import Response, ResponseEvent


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant: str
    name: str
    digest: bytes
    """HMAC-SHA256 of the secret; the secret itself is nowhere."""
    scopes: frozenset[str]
    created_at: int
    profile: str | None = None
    """The conversation profile of requests with this key, where they name none."""
    expires_at: int | None = None
    revoked_at: int | None = None


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


class Conversations(Protocol):
    async def add(self, tenant: str, conversation: Conversation, most: int) -> None:
        """Raises QuotaExceeded if the tenant has `most` already."""

    async def get(self, tenant: str, conversation_id: str) -> Conversation: ...
    async def page(self, tenant: str, page: PageRequest, metadata: Mapping[str, str], now: int) -> Page[Conversation]:
        """Those that have not expired and whose metadata hold all of `metadata`, by creation."""

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


class UnitOfWork(Protocol):
    keys: Keys
    conversations: Conversations
    items: Items
    responses: Responses
    turns: Turns
    sessions: Sessions
    completions: Completions


@runtime_checkable
class Database(Protocol):
    def reading(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One snapshot; nothing is kept."""

    def writing(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction, committed at the end unless an exception leaves it."""

    async def check(self) -> bool:
        """Whether the database answers within its deadline."""
