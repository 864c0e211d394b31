"""Who a bearer token belongs to. Closed by default: what is not known is refused."""

from __future__ import annotations

import hashlib
import hmac

from frontend.domain.errors import Unauthenticated
from frontend.domain.principal import Principal

BOOTSTRAP = Principal(key_id="bootstrap", tenant="default", scopes=frozenset({"admin"}))


class ApiKeyService:
    """Holds digests of keys, never keys."""

    def __init__(self, bootstrap_key: str) -> None:
        self._keys = {digest(bootstrap_key): BOOTSTRAP}

    def authenticate(self, authorization: str | None) -> Principal:
        """`authorization`: the header's value. Raises Unauthenticated."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated("No API key was sent: use the header 'Authorization: Bearer KEY'.")
        wanted = digest(key.strip())
        for known, principal in self._keys.items():
            if hmac.compare_digest(known, wanted):
                return principal
        raise Unauthenticated("The API key is not known.")


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
