"""Who is asking, and what they may do."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from frontend.domain.errors import Forbidden
from frontend.domain.limits import UNLIMITED, Limits, Standing
from frontend.domain.record import Record

Scope = Literal["chat", "conversations", "retrieval:read", "retrieval:write", "models", "metrics", "admin"]
"""chat: generate, embed, and what is stored of it; conversations: with sessions and memory; retrieval: files, vector stores
and their search; admin: everything, and the keys of all tenants."""
SCOPES: tuple[Scope, ...] = get_args(Scope)


class Principal(msgspec.Struct, frozen=True):
    key_id: str
    tenant: str
    scopes: frozenset[Scope]
    profile: str | None = None
    """The conversation profile of its requests, where they name none."""
    limits: Limits = UNLIMITED
    """The key's own, beside those of its tenant."""
    expires_at: int | None = None
    standing: Standing = msgspec.field(default_factory=Standing)
    """Of this request; written by the gate, read when the reply's headers are."""
    record: Record = msgspec.field(default_factory=Record)
    """Of this request, as well."""

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def require(self, scope: Scope, param: str | None = None) -> None:
        """Raises Forbidden."""
        if not self.may(scope):
            raise Forbidden(f"The API key lacks the scope {scope!r}.", param=param)
