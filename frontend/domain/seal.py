"""What a client keeps for us and brings back: readable, but not to be changed, and of no use to another tenant."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Literal

import msgspec

from frontend.domain.errors import InvalidRequest

PURPOSE = b"hermes2 compaction v1"
"""Keeps this use of the service's secret apart from its others."""
MAC_BYTES = 32


class Summary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in a seal; `v` tells its form, should that ever change."""

    v: Literal[1] = 1
    summary: str


class TenantSeal:
    """One tenant's."""

    def __init__(self, key: bytes, tenant: str) -> None:
        self._key = hmac.digest(key, PURPOSE, hashlib.sha256)
        self._tenant = tenant.encode() + b"\0"

    def seal(self, summary: str) -> str:
        """base64url of an HMAC-SHA256 over tenant and payload, and the payload."""
        payload = msgspec.json.encode(Summary(summary=summary))
        return base64.urlsafe_b64encode(self._mac(payload) + payload).decode()

    def unseal(self, sealed: str, param: str) -> str:
        """Raises InvalidRequest, naming `param`, for what this tenant was not given by us."""
        try:
            opened = base64.b64decode(sealed, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):  # the latter for what is not ASCII
            raise not_ours(param) from None
        mac, payload = opened[:MAC_BYTES], opened[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)):
            raise not_ours(param)
        return msgspec.json.decode(payload, type=Summary).summary

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, self._tenant + payload, hashlib.sha256)


def not_ours(param: str) -> InvalidRequest:
    return InvalidRequest(
        "The encrypted content of this compaction is not what this service gave out: it was changed, or is another's.",
        param=param,
        code="invalid_encrypted_content",
    )


class Seal:
    """Made of the service's secret."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, tenant: str) -> TenantSeal:
        return TenantSeal(self._key, tenant)
