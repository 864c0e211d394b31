"""A request with an Idempotency-Key: what is kept of it and of its reply, and who keeps it."""

from __future__ import annotations

import zlib
from typing import Protocol

import msgspec

LARGEST_BYTES = 4 * 2**20
"""Of a reply that is kept: a stream has some 250 bytes for each token."""


class StoredReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a request with an Idempotency-Key was answered with."""

    status: int
    content_type: str
    body: bytes
    """Compressed (zlib)."""


class IdempotencyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The first request that came with an Idempotency-Key."""

    key: str
    fingerprint: bytes
    """SHA-256 of its method, path, body, and of what else its reply depends on."""
    owner: str
    """The process that works on it (frontend/services/process.py)."""
    lease_until: float
    """Unix time, seconds; after it, or when its owner is dead, the request can be taken over."""
    created_at: int
    expires_at: int
    reply: StoredReply | None = None
    """None while it is in progress."""


class Keeper(Protocol):
    async def begin(self, tenant: str, key: str, fingerprint: bytes) -> StoredReply | None:
        """None: it is the caller's to answer or to give up. Raises InProgress, KeyReused, Unavailable."""

    async def answer(self, tenant: str, key: str, reply: StoredReply) -> None: ...
    async def give_up(self, tenant: str, key: str) -> None: ...


class Recording:
    """The bytes of one reply as they pass by, compressed at once: an open stream holds little memory."""

    def __init__(self) -> None:
        self._compress = zlib.compressobj(1)
        self._pieces: list[bytes] = []
        self.size_bytes = 0

    def add(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.size_bytes <= LARGEST_BYTES:
            self._pieces.append(self._compress.compress(piece))
        else:
            self._pieces.clear()

    def reply(self, status: int, content_type: str) -> StoredReply | None:
        """None: it is too large to be kept."""
        if self.size_bytes > LARGEST_BYTES:
            return None
        return StoredReply(
            status=status, content_type=content_type, body=b"".join([*self._pieces, self._compress.flush()])
        )


def recorded(status: int, content_type: str, body: bytes) -> StoredReply:
    """Of a body that is there as a whole, and not larger than what is kept."""
    return StoredReply(status=status, content_type=content_type, body=zlib.compress(body, 1))


def body_of(reply: StoredReply) -> bytes:
    return zlib.decompress(reply.body)
