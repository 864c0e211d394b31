"""The bodies of /v1/conversations: OpenAI's, and what we add (list, expiry, context, profile, export)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from frontend.api.items.schema import ItemBody
from frontend.api.new_conversations import ContextSwitches, ConversationExpiry, InputItems, ProfileName
from frontend.api.parameters import Metadata
from frontend.domain.context import PartName
from frontend.domain.responses import Degraded


class CreateConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    metadata: Metadata | None = None
    items: InputItems | None = None
    expires_after: ConversationExpiry | None = None
    context: ContextSwitches | None = None
    profile: ProfileName | None = None
    """Ours: the conversation profile of its turns, where a request names none."""


class UpdateConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At least one of them; what is not sent stays as it is."""

    metadata: Metadata | UnsetType | None = UNSET
    """Replaces all that there is; null: none."""
    expires_after: ConversationExpiry | UnsetType | None = UNSET
    """null: never."""
    context: ContextSwitches | UnsetType = UNSET
    profile: ProfileName | UnsetType | None = UNSET


class ContextBody(msgspec.Struct, frozen=True, kw_only=True):
    trim: bool
    summary: bool
    memory: bool
    retrieval: bool
    budget_tokens: int | None
    vector_store_ids: Sequence[str]


class ConversationBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]
    last_active_at: int
    """When it got its newest item, or was made."""
    expires_after: ConversationExpiry | None
    expires_at: int | None
    context: ContextBody
    profile: str | None


class ConversationList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ConversationBody]
    first_id: str
    last_id: str
    has_more: bool


class ConversationDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True


class CreateItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: InputItems


class ConversationItemList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ItemBody]
    first_id: str
    """Of an empty list: an empty text, as OpenAI's types want a string."""
    last_id: str
    has_more: bool


class ConversationExport(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["conversation.export"] = "conversation.export"
    conversation: ConversationBody
    items: list[ItemBody]
    """All of them, oldest first."""


class ContextTurnBody(msgspec.Struct, frozen=True):
    role: str
    text: str
    tokens: int


class ContextPartBody(msgspec.Struct, frozen=True):
    name: PartName
    tokens: int
    turns: list[ContextTurnBody]


class ContextTrimBody(msgspec.Struct, frozen=True, kw_only=True):
    upto: int
    """Items up to this number are left out; they are numbered from 1 on, as they came."""
    summary: str | None
    """What stands for them."""


class ConversationContext(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of the next turn, part by part, and the room that it has. Numbers are tokens."""

    object: Literal["conversation.context"] = "conversation.context"
    conversation_id: str
    window_tokens: int
    """Prompt and answer together."""
    prompt_tokens: int
    cached_prefix_tokens: int
    """The beginning of the prompt that the turn after it repeats, and that the engine need not read again."""
    answer_tokens: int
    """The longest answer."""
    history_room_tokens: int
    """What history may fill."""
    parts: list[ContextPartBody]
    degraded: list[Degraded]
    """Parts that the conversation has, and that could not be looked up now."""
    trim: ContextTrimBody
    context: ContextBody
