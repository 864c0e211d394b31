"""Who is asking."""

import msgspec


class Principal(msgspec.Struct, frozen=True):
    key_id: str
    tenant: str
    scopes: frozenset[str]
