"""An API key as it is kept, and what is remembered of what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from frontend.domain.limits import UNLIMITED, Limits
from frontend.domain.principal import Scope

KeyStatus = Literal["active", "expired", "revoked"]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant: str
    name: str
    digest: bytes
    """HMAC-SHA256 of the secret; the secret itself is nowhere."""
    scopes: frozenset[Scope]
    created_at: int
    created_by: str | None = None
    """Id of the key that made it; None: the command line."""
    profile: str | None = None
    """The conversation profile of requests with this key, where they name none."""
    limits: Limits = UNLIMITED
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    """Written now and then (frontend/services/keys/last_used.py)."""
    replaced_by: str | None = None
    """Id of the key that came in its place when it was rotated."""

    def status(self, now: float) -> KeyStatus:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done to keys; no secret is in it."""

    id: int = 0
    """Counts up; 0 before it is written."""
    at: int
    actor: str
    """Id of the key that did it, or "command-line"."""
    action: str
    """"key.created", "key.rotated", "key.revoked", ..."""
    tenant: str
    """Whose things were touched."""
    target: str
    """What was: a key's id."""
    request_id: str | None = None
    client: str | None = None
    """Address."""
    detail: Mapping[str, object] = msgspec.field(default_factory=dict)
