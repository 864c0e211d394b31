"""Keys are made, rotated, revoked and looked at, each change with its entry in the audit log, in one transaction."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import get_args

import msgspec

from frontend.domain.api_keys import ApiKey, AuditEntry
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.errors import InvalidRequest, NotFound
from frontend.domain.limits import MOST, UNLIMITED, Limits
from frontend.domain.principal import Scope
from frontend.domain.storage import Database, UnitOfWork
from frontend.services.keys import form
from frontend.services.keys.minter import Minter

USUAL_SCOPES: frozenset[Scope] = frozenset({"chat", "conversations", "models", "retrieval:read", "retrieval:write"})
"""Of a key that is made without a word of them: everything but the service's own affairs."""
OVERLAP_S = 24 * 3600
"""A key that was rotated works on for so long, unless it is said otherwise."""
LONGEST_S = 100 * 366 * 24 * 3600
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MOST_NAME_CHARS = 256


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    """Made if there is none of this name."""
    name: str = ""
    scopes: frozenset[Scope] = USUAL_SCOPES
    profile: str | None = None
    """One that exists."""
    limits: Limits = UNLIMITED
    expires_in_s: int | None = None
    """None: when its minter does, if ever."""


class Minted(msgspec.Struct, frozen=True):
    key: ApiKey
    text: str
    """The key itself, which is shown now and never again."""
    replaced: ApiKey | None = None
    """The one in whose place it comes."""


class KeyService:
    def __init__(self, database: Database, pepper: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock

    async def create(self, minter: Minter, asked: NewKey) -> Minted:
        """Raises InvalidRequest, Forbidden, Unavailable."""
        minter.require_admin()
        check(asked)
        now = int(self._clock())
        expires_at = None if asked.expires_in_s is None else now + asked.expires_in_s
        minted = self._mint(minter, asked, expires_at, now)
        async with self._database.writing() as uow:
            await uow.keys.ensure_tenant(asked.tenant, now)
            await uow.keys.add(asked.tenant, minted.key)
            await uow.audit.add(entry(minter, "key.created", minted.key, now, **described(minted.key)))
        return minted

    async def rotate(
        self, minter: Minter, key_id: str, *, overlap_s: int = OVERLAP_S, expires_in_s: int | None = None
    ) -> Minted:
        """A key in the place of another: of its tenant, with its name, scopes, limits, profile, and until it would have
        expired, or for `expires_in_s` seconds. The other one works for `overlap_s` more, if it does not end earlier.

        Of several who rotate the same key at once, one does; for the others it has been replaced. Raises InvalidRequest,
        NotFound, Forbidden, Unavailable.
        """
        minter.require_admin()
        check_seconds(overlap_s, "overlap_s", least=0)
        now = int(self._clock())
        async with self._database.writing() as uow:
            old = await held(uow, key_id)
            if old.replaced_by is not None:
                raise InvalidRequest(
                    f"The API key has been rotated already; {old.replaced_by} came in its place.",
                    code="api_key_rotated",
                )
            if old.status(now) != "active":
                raise InvalidRequest(
                    "The API key has expired, or was revoked. Please create a new one.", code="api_key_ended"
                )
            asked = NewKey(tenant=old.tenant, name=old.name, scopes=old.scopes, profile=old.profile, limits=old.limits)
            check_seconds(expires_in_s, "expires_in_s", least=1)
            expires_at = old.expires_at if expires_in_s is None else now + expires_in_s
            minted = self._mint(minter, asked, expires_at, now)
            old = await uow.keys.end(old.tenant, old.id, expires_at=now + overlap_s, replaced_by=minted.key.id)
            await uow.keys.add(old.tenant, minted.key)
            detail = {"replaced_by": minted.key.id, "expires_at": old.expires_at}
            await uow.audit.add(entry(minter, "key.rotated", old, now, **detail))
            await uow.audit.add(entry(minter, "key.created", minted.key, now, **described(minted.key), replaces=old.id))
        return msgspec.structs.replace(minted, replaced=old)

    async def revoke(self, minter: Minter, key_id: str) -> ApiKey:
        """It is refused from now on, everywhere within a second. Again is as good as once. Raises NotFound, Forbidden,
        Unavailable."""
        minter.require_admin()
        now = int(self._clock())
        async with self._database.writing() as uow:
            key = await held(uow, key_id)
            if key.revoked_at is not None:
                return key
            key = await uow.keys.end(key.tenant, key.id, revoked_at=now)
            await uow.audit.add(entry(minter, "key.revoked", key, now))
        return key

    async def get(self, key_id: str) -> ApiKey:
        """Raises NotFound, Unavailable."""
        async with self._database.reading() as uow:
            return await found(uow, key_id)

    async def page(self, tenant: str | None, page: PageRequest) -> Page[ApiKey]:
        """`tenant`: None: of all. Raises InvalidRequest, Unavailable."""
        async with self._database.reading() as uow:
            return await uow.keys.page(tenant, page)

    async def audit(self, tenant: str | None, *, before: int | None, limit: int) -> Page[AuditEntry]:
        """The newest first. `tenant`: None: of all."""
        async with self._database.reading() as uow:
            entries = await uow.audit.page(tenant, before=before, limit=limit + 1)
        return Page(entries[:limit], len(entries) > limit)

    def _mint(self, minter: Minter, asked: NewKey, expires_at: int | None, now: int) -> Minted:
        """Raises Forbidden for more than the minter has."""
        key_id, secret = form.new()
        key = ApiKey(
            id=key_id,
            tenant=asked.tenant,
            name=asked.name,
            digest=form.digest(self._pepper, secret),
            scopes=minter.scopes(asked.scopes),
            created_at=now,
            created_by=minter.key_id,
            profile=asked.profile,
            limits=minter.limits(asked.limits),
            expires_at=minter.expiry(expires_at),
        )
        return Minted(key, form.text_of(key_id, secret))


async def held(uow: UnitOfWork, key_id: str) -> ApiKey:
    key = await found(uow, key_id)
    return await uow.keys.hold(key.tenant, key.id)


async def found(uow: UnitOfWork, key_id: str) -> ApiKey:
    """A key may have been sent where its id belongs: nothing of it is said again."""
    key = await uow.keys.find(key_id) if form.KEY_ID.fullmatch(key_id) else None
    if key is None:
        raise NotFound("No API key found with this id: 16 hexadecimal digits, the part of a key after 'hm2_'.")
    return key


def check(asked: NewKey) -> None:
    """Raises InvalidRequest."""
    if TENANT.fullmatch(asked.tenant) is None:
        raise InvalidRequest(
            "A tenant is called by 1 to 64 of a-z, 0-9, - and _, beginning with a letter or a digit.", param="tenant"
        )
    if len(asked.name) > MOST_NAME_CHARS:
        raise InvalidRequest(f"A name has at most {MOST_NAME_CHARS} characters.", param="name")
    if not asked.scopes:
        raise InvalidRequest(f"A key has at least one scope: {', '.join(get_args(Scope))}.", param="scopes")
    for name, value in msgspec.structs.asdict(asked.limits).items():
        if value is not None and not 1 <= value <= MOST:
            raise InvalidRequest(f"A limit is 1 to {MOST}.", param=f"limits.{name}")
    check_seconds(asked.expires_in_s, "expires_in_s", least=1)


def check_seconds(seconds: int | None, param: str, *, least: int) -> None:
    if seconds is not None and not least <= seconds <= LONGEST_S:
        raise InvalidRequest(f"'{param}' is {least} to {LONGEST_S} seconds.", param=param)


def entry(minter: Minter, action: str, key: ApiKey, now: int, **detail: object) -> AuditEntry:
    return AuditEntry(
        at=now,
        actor=minter.id,
        action=action,
        tenant=key.tenant,
        target=key.id,
        request_id=minter.request_id,
        client=minter.client,
        detail=detail,
    )


def described(key: ApiKey) -> dict[str, object]:
    """What a new key may do, for the audit log."""
    limits = {name: value for name, value in msgspec.structs.asdict(key.limits).items() if value is not None}
    return {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "profile": key.profile,
        "limits": limits,
        "expires_at": key.expires_at,
    }
