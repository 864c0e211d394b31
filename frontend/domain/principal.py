"""Who is asking."""

import msgspec


class Principal(msgspec.Struct, frozen=True):
    key_id: str
    tenant: str
    scopes: frozenset[str]
    profile: str | None = None
    """The conversation profile of its requests, where they name none."""
