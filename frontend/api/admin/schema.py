"""The bodies of /v1/admin."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from frontend.api.new_conversations import ProfileName
from frontend.domain.limits import MOST
from frontend.domain.principal import Scope
from frontend.services.keys.management import LONGEST_S, MOST_NAME_CHARS, OVERLAP_S

Tenant = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)",
        description="1 to 64 of a-z, 0-9, - and _, beginning with a letter or a digit.",
    ),
]
Limit = Annotated[int, Meta(ge=1, le=MOST)]
Seconds = Annotated[int, Meta(ge=1, le=LONGEST_S)]


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """null: none."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrency: Limit | None = None


class CreateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tenant: Tenant
    """Made if there is none of this name."""
    name: Annotated[str, Meta(max_length=MOST_NAME_CHARS)] = ""
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=32)] | None = None
    """chat, conversations, models, retrieval:read and retrieval:write, unless it is said."""
    profile: ProfileName | None = None
    """The conversation profile of its requests, where they name none."""
    limits: KeyLimits | None = None
    expires_in_s: Seconds | None = None


class RotateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    overlap_s: Annotated[int, Meta(ge=0, le=LONGEST_S)] = OVERLAP_S
    """The old key works for so long."""
    expires_in_s: Seconds | None = None
    """Of the new one; when the old one would have, unless it is said."""


class KeyBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["api_key"] = "api_key"
    tenant: str
    name: str
    status: Literal["active", "expired", "revoked"]
    scopes: list[Scope]
    limits: KeyLimits
    profile: str | None
    created_at: int
    created_by: str | None
    """Id of the key that made it; null: the command line."""
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    """As of about half a minute ago."""
    replaced_by: str | None
    """Id of the key that came in its place when it was rotated."""


class MintedKeyBody(msgspec.Struct, frozen=True, kw_only=True):
    """The only reply that has the key itself."""

    key: str
    """Keep it now: it is stored nowhere, and cannot be shown again."""
    api_key: KeyBody
    replaces: KeyBody | None = None
    """The one that was rotated."""


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[KeyBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AuditEntryBody(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    object: Literal["audit_entry"] = "audit_entry"
    at: int
    actor: str
    """Id of the key that did it, "bootstrap", or "command-line"."""
    action: str
    tenant: str
    """Whose things were touched."""
    target: str
    """Id of the key that was."""
    request_id: str | None
    client: str | None
    """Address."""
    detail: dict[str, Any]


class AuditList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[AuditEntryBody]
    first_id: int | None
    last_id: int | None
    has_more: bool
