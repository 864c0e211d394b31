"""Who a bearer token belongs to. Closed by default: what is not known is refused.

A key is `hm2_<id>_<secret><check>`: 16 hexadecimal digits that the row is found by, 32 random bytes as base64url, and a
CRC-32 of all before as 6 digits of base 62, by which a typo is told without asking the database. The database holds an
HMAC of the secret under the pepper, a file that is not in it: who reads the one without the other can do nothing with it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
import secrets
import string
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import structlog

from frontend.domain.errors import InvalidRequest, Unauthenticated, Unavailable
from frontend.domain.principal import Principal
from frontend.domain.storage import ApiKey, Database
from frontend.settings import SettingsError

log = structlog.get_logger("hermes2.keys")

BOOTSTRAP = Principal(key_id="bootstrap", tenant="default", scopes=frozenset({"admin"}))
CREATED_SCOPES = frozenset({"chat"})
KEY = re.compile(r"hm2_([0-9a-f]{16})_([A-Za-z0-9_-]{43})([0-9A-Za-z]{6})")
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
PEPPER_BYTES = 32
BASE_62 = string.digits + string.ascii_uppercase + string.ascii_lowercase

FRESH_S = 1.0
"""A key is looked up at most so often: a revocation works within this time and that of one lookup."""
GRACE_S = 60.0
"""While the database is away, a key that it knew so long ago still works."""
GRACE_LOOKUP_S = 0.5
"""Such a key waits for the database so long only."""
MOST_CACHED = 10_000


class CachedKey:
    """What the database said of a key, when it said it, and when it was asked last (monotonic seconds)."""

    __slots__ = ("asked_at", "key", "said_at")

    def __init__(self, key: ApiKey, now: float) -> None:
        self.key = key
        self.said_at = self.asked_at = now


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

    async def authenticate(self, authorization: str | None) -> Principal:
        """`authorization`: the header's value. Raises Unauthenticated, Unavailable."""
        scheme, _, text = (authorization or "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise Unauthenticated("No API key was sent: use the header 'Authorization: Bearer KEY'.")
        if hmac.compare_digest(self._bootstrap, hashlib.sha256(text.encode()).digest()):
            return BOOTSTRAP
        key_id, secret = parse(text)
        key = await self._find(key_id)
        if key is None or not hmac.compare_digest(key.digest, digest(self._pepper, secret)):
            raise unknown()
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= self._clock()):
            raise Unauthenticated("The API key has expired, or was revoked.")
        return Principal(key_id=key.id, tenant=key.tenant, scopes=key.scopes, profile=key.profile)

    async def _find(self, key_id: str) -> ApiKey | None:
        """Keys that are there are remembered; those that are not are looked up each time. Raises Unavailable."""
        now, cached = self._monotonic(), self._cache.get(key_id)
        if cached is None or now - cached.said_at > GRACE_S:
            return self._remember(key_id, await self._look_up(key_id))
        if now - cached.asked_at <= FRESH_S:
            return cached.key
        cached.asked_at = now
        try:
            async with asyncio.timeout(GRACE_LOOKUP_S):
                return self._remember(key_id, await self._look_up(key_id))
        except (Unavailable, TimeoutError):
            log.warning("key_from_memory", key_id=key_id, age_s=round(now - cached.said_at, 1))
            return cached.key

    async def _look_up(self, key_id: str) -> ApiKey | None:
        async with self._database.reading() as uow:
            return await uow.keys.find(key_id)

    def _remember(self, key_id: str, key: ApiKey | None) -> ApiKey | None:
        self._cache.pop(key_id, None)
        if key is not None:
            self._cache[key_id] = CachedKey(key, self._monotonic())
            if len(self._cache) > MOST_CACHED:
                self._cache.popitem(last=False)
        return key


async def create(
    database: Database, pepper: bytes, tenant: str, *, name: str = "", profile: str | None = None, now: int
) -> str:
    """A new key of `tenant`, which is made if there is none. It is nowhere else. Raises InvalidRequest, Unavailable."""
    if TENANT.fullmatch(tenant) is None:
        raise InvalidRequest(
            "A tenant is called by 1 to 64 of a-z, 0-9, - and _, beginning with a letter or a digit.", param="tenant"
        )
    key_id = secrets.token_hex(8)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    key = ApiKey(
        id=key_id,
        tenant=tenant,
        name=name,
        digest=digest(pepper, secret),
        scopes=CREATED_SCOPES,
        created_at=now,
        profile=profile,
    )
    async with database.writing() as uow:
        await uow.keys.ensure_tenant(tenant, now)
        await uow.keys.add(tenant, key)
    text = f"hm2_{key_id}_{secret}"
    return text + check(text)


def parse(text: str) -> tuple[str, str]:
    """Id and secret. Raises Unauthenticated for what cannot be a key."""
    match = KEY.fullmatch(text)
    if match is None or check(text[: -len(match[3])]) != match[3]:
        raise unknown()
    return match[1], match[2]


def check(text: str) -> str:
    """CRC-32 in base 62, 6 digits."""
    crc, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        crc, digit = divmod(crc, 62)
        digits = BASE_62[digit] + digits
    return digits


def digest(pepper: bytes, secret: str) -> bytes:
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def unknown() -> Unauthenticated:
    return Unauthenticated("The API key is not known.")


def read_pepper(path: Path) -> bytes:
    """The secret of this installation, 32 bytes, made if there is none. Raises SettingsError.

    All processes that share a database need the same one. It appears complete or not at all: linked, never written there.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(PEPPER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            log.info("pepper_made_by_another_process")
        finally:
            draft.unlink()
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise SettingsError(f"home (HERMES2_HOME): {path} is damaged: {len(pepper)} bytes where {PEPPER_BYTES} belong")
    return pepper
