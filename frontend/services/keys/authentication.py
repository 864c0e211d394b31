"""Who a bearer token belongs to. Closed by default: what is not known is refused."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from frontend.domain.api_keys import ApiKey
from frontend.domain.errors import Unauthenticated, Unavailable
from frontend.domain.principal import Principal, Scope
from frontend.domain.storage import Database
from frontend.observability import tracing
from frontend.services.keys.form import digest, parse, unknown
from frontend.services.keys.last_used import LastUsed

log = structlog.get_logger("hermes2.keys")

BOOTSTRAP_ID = "bootstrap"
BOOTSTRAP_TENANT = "default"
BOOTSTRAP_SCOPES: frozenset[Scope] = frozenset({"admin"})

FRESH_S = 0.5
"""A key is looked up at most so often: a revocation works everywhere within this time and that of one lookup, together
less than a second (tests/integration/test_auth_matrix.py; 0.30 to 0.48 s in 12 tries with two workers)."""
GRACE_S = 60.0
"""While the database is away, a key that it knew so long ago still works."""
GRACE_LOOKUP_S = 0.4
"""Such a key waits for the database so long only."""
MOST_CACHED = 10_000


class CachedKey:
    """What the database said of a key, when it was asked for that, and when it was asked last (monotonic seconds)."""

    __slots__ = ("asked_at", "key", "said_at")

    def __init__(self, key: ApiKey, asked_at: float) -> None:
        self.key = key
        self.said_at = self.asked_at = asked_at


class ApiKeyService:
    """Holds digests of keys, never keys."""

    def __init__(
        self,
        bootstrap_key: str,
        database: Database,
        pepper: bytes,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bootstrap = hashlib.sha256(bootstrap_key.encode()).digest()
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._monotonic = monotonic
        self._cache: OrderedDict[str, CachedKey] = OrderedDict()
        self._last_used = LastUsed(database, clock=clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes down now and then, and at the end, when keys were used."""
        async with self._last_used.running():
            yield

    async def authenticate(self, authorization: str | None) -> Principal:
        """`authorization`: the header's value. Raises Unauthenticated, Unavailable."""
        scheme, _, text = (authorization or "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise Unauthenticated("No API key was sent: use the header 'Authorization: Bearer KEY'.")
        if hmac.compare_digest(self._bootstrap, hashlib.sha256(text.encode()).digest()):
            return Principal(BOOTSTRAP_ID, BOOTSTRAP_TENANT, BOOTSTRAP_SCOPES)
        key_id, secret = parse(text)
        key = await self._find(key_id)
        if key is None or not hmac.compare_digest(key.digest, digest(self._pepper, secret)):
            raise unknown()
        if key.status(self._clock()) != "active":
            raise Unauthenticated("The API key has expired, or was revoked.")
        self._last_used.note(key.id)
        return Principal(key.id, key.tenant, key.scopes, key.profile, key.limits, key.expires_at)

    async def _find(self, key_id: str) -> ApiKey | None:
        """Keys that are there are remembered; those that are not are looked up each time. Raises Unavailable."""
        now, cached = self._monotonic(), self._cache.get(key_id)
        if cached is None or now - cached.said_at > GRACE_S:
            return self._remember(key_id, await self._look_up(key_id), now)
        if now - cached.asked_at <= FRESH_S:
            return cached.key
        cached.asked_at = now
        try:
            async with asyncio.timeout(GRACE_LOOKUP_S):
                return self._remember(key_id, await self._look_up(key_id), now)
        except (Unavailable, TimeoutError):
            log.warning("key_from_memory", key_id=key_id, age_s=round(now - cached.said_at, 1))
            return cached.key

    async def _look_up(self, key_id: str) -> ApiKey | None:
        with tracing.span("key.look_up"):
            async with self._database.reading() as uow:
                return await uow.keys.find(key_id)

    def _remember(self, key_id: str, key: ApiKey | None, asked_at: float) -> ApiKey | None:
        """From when it was asked for: what was said then may have changed while the answer was on its way."""
        known = self._cache.get(key_id)
        if known is not None and known.said_at > asked_at:
            return known.key
        self._cache.pop(key_id, None)
        if key is not None:
            self._cache[key_id] = CachedKey(key, asked_at)
            if len(self._cache) > MOST_CACHED:
                self._cache.popitem(last=False)
        return key
