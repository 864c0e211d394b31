"""Conversations, the sessions that lead to them, and how much of them a prompt holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Literal, TypeVar

import msgspec

from frontend.domain.items import StoredItem

T = TypeVar("T")
Order = Literal["asc", "desc"]


class ContextSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the prompts of one conversation may hold; each part can be switched off."""

    trim: bool = True
    """History that does not fit is left out, oldest first; false: a turn that does not fit is refused."""
    summary: bool = True
    """What was left out is summarised by the model."""
    memory: bool = True
    """What was left out is recalled where it fits the question."""
    retrieval: bool = True
    """Passages of attached documents are put in where they fit the question."""
    budget_tokens: int | None = None
    """Most tokens of a prompt; None: what the window leaves after the answer's reserve."""
    vector_store_ids: Sequence[str] = ()
    """Stores that each turn is looked up in, if `retrieval` is on and the tenant (still) has them."""


class Trim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a conversation's prompts begin. Stored, so that every process builds the same bytes."""

    upto: int = 0
    """Items up to this sequence number are left out; 0: none."""
    summary: str | None = None
    """Of what is left out, as far as `summarised_upto`; never changed between two trims."""
    summarised_upto: int = 0


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True):
    anchor: Literal["created_at", "last_active_at"]
    seconds: int


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    metadata: Mapping[str, str]
    created_at: int
    """Unix time, seconds, as every time here."""
    last_active_at: int
    expires_after: ExpiresAfter | None = None
    context: ContextSettings = ContextSettings()
    profile: str | None = None
    """The conversation profile of its turns, where a request names none."""
    trim: Trim = Trim()
    head: int = 0
    """The sequence number of its newest item."""
    item_count: int = 0
    version: int = 0
    """Raised by every change of its items or its trim: a cache that holds another version is stale."""

    @property
    def expires_at(self) -> int | None:
        if self.expires_after is None:
            return None
        anchor = self.created_at if self.expires_after.anchor == "created_at" else self.last_active_at
        return anchor + self.expires_after.seconds


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as far as a prompt can see it."""

    conversation: Conversation
    pinned: Sequence[StoredItem]
    """Its leading system and developer messages, which no trim leaves out."""
    history: Sequence[StoredItem]
    """The others behind the trim, in order."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A handle on one conversation, issued by the server, that ends by itself."""

    id: str
    conversation_id: str
    metadata: Mapping[str, str]
    created_at: int
    last_used_at: int
    idle_timeout_s: int
    expires_at: int
    """The absolute end, however busy it is."""

    def is_alive(self, now: float) -> bool:
        return now < min(self.expires_at, self.last_used_at + self.idle_timeout_s)


class Page(msgspec.Struct, Generic[T], frozen=True):
    data: Sequence[T]
    has_more: bool


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    after: str | None = None
    """The id that the page before ended with."""
    limit: int
    order: Order
