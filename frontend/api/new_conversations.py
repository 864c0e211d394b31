"""What a new conversation is made of, on the wire: /v1/conversations and /v1/sessions both make some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from frontend.api.file_search import StoreId
from frontend.api.items.mapping import to_items
from frontend.api.items.schema import InputItem
from frontend.domain.conversations import ContextSettings, ExpiresAfter
from frontend.domain.seal import TenantSeal
from frontend.services.conversations import NewConversation
from frontend.services.search import MOST_STORES

Seconds = Annotated[int, Meta(ge=1, le=2**31 - 1)]
ProfileName = Annotated[str, Meta(min_length=1, max_length=80)]
InputItems = Annotated[list[InputItem], Meta(max_length=20)]


class ContextSwitches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the prompts of a conversation may hold; what is not sent stays as it is, or gets its default."""

    trim: bool | UnsetType = UNSET
    """false: a turn that does not fit is refused, instead of leaving out what is oldest."""
    summary: bool | UnsetType = UNSET
    """Summarise what was left out."""
    memory: bool | UnsetType = UNSET
    """Recall what was left out where it fits the question."""
    retrieval: bool | UnsetType = UNSET
    """Put in passages of attached documents where they fit the question."""
    budget_tokens: Seconds | UnsetType | None = UNSET
    """Most tokens of a prompt; null: what the window leaves."""
    vector_store_ids: Annotated[list[StoreId], Meta(max_length=MOST_STORES)] | UnsetType = UNSET
    """Stores that each turn is looked up in; empty: none."""

    @property
    def values(self) -> Mapping[str, bool | int | list[str] | None]:
        """Of what was sent."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}


class ConversationExpiry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ours: the conversation is deleted so long after it was made, or after its newest item."""

    anchor: Literal["created_at", "last_active_at"]
    seconds: Seconds


def new_conversation(
    metadata: Mapping[str, str] | None,
    items: list[InputItem] | None,
    expires_after: ConversationExpiry | None,
    context: ContextSwitches | None,
    profile: str | None,
    seal: TenantSeal,
) -> NewConversation:
    """Raises InvalidRequest, naming the item and what is wrong with it."""
    return NewConversation(
        metadata=metadata or {},
        items=to_items(items or (), "items", seal),
        expires_after=expiry(expires_after),
        context=msgspec.structs.replace(ContextSettings(), **(context.values if context else {})),
        profile=profile,
    )


def expiry(data: ConversationExpiry | None) -> ExpiresAfter | None:
    return None if data is None else ExpiresAfter(anchor=data.anchor, seconds=data.seconds)
