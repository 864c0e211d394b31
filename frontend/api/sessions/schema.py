"""The bodies of /v1/sessions."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from frontend.api.new_conversations import ContextSwitches, InputItems, ProfileName, Seconds
from frontend.api.parameters import Metadata


class SessionConversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(min_length=1, max_length=128)]


class CreateSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    conversation: Annotated[str, Meta(min_length=1, max_length=128)] | SessionConversation | None = None
    """One that is there; without it a new one is made."""
    idle_timeout_s: Seconds | None = None
    """Not used for so long, it ends; at most, and by default, the setting conversations.session_idle_s."""
    lifetime_s: Seconds | None = None
    """It ends after so long in any case; at most, and by default, conversations.session_lifetime_s."""
    metadata: Metadata | None = None
    profile: ProfileName | None = None
    """Of the new conversation, as the next two."""
    context: ContextSwitches | None = None
    items: InputItems | None = None


class SessionBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["session"] = "session"
    conversation: SessionConversation
    created_at: int
    last_used_at: int
    """To the minute, or to a quarter of the idle timeout if that is shorter."""
    expires_at: int
    """As it stands: a use may move it, up to `created_at` + `lifetime_s`."""
    idle_timeout_s: int
    lifetime_s: int
    metadata: dict[str, str]


class SessionDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["session.deleted"] = "session.deleted"
    deleted: Literal[True] = True
