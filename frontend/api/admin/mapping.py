"""Between the wire's keys and the domain's."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request

from frontend.api.admin import schema
from frontend.domain.api_keys import ApiKey, AuditEntry
from frontend.domain.conversations import Page
from frontend.domain.limits import Limits
from frontend.domain.profiles import Profiles
from frontend.http.auth import principal_of
from frontend.services.keys.management import USUAL_SCOPES, Minted, NewKey
from frontend.services.keys.minter import Minter


def minter_of(request: Request[Any, Any, Any]) -> Minter:
    state = request.scope.get("state") or {}
    return Minter(principal=principal_of(request), request_id=state.get("request_id"), client=state.get("client"))


def to_new(data: schema.CreateKey, profiles: Profiles) -> NewKey:
    """Raises InvalidRequest for a profile that does not exist."""
    if data.profile is not None:
        profiles.get(data.profile)
    return NewKey(
        tenant=data.tenant,
        name=data.name,
        scopes=USUAL_SCOPES if data.scopes is None else frozenset(data.scopes),
        profile=data.profile,
        limits=Limits() if data.limits is None else Limits(**msgspec.structs.asdict(data.limits)),
        expires_in_s=data.expires_in_s,
    )


def body(key: ApiKey, now: float) -> schema.KeyBody:
    return schema.KeyBody(
        id=key.id,
        tenant=key.tenant,
        name=key.name,
        status=key.status(now),
        scopes=sorted(key.scopes),
        limits=schema.KeyLimits(**msgspec.structs.asdict(key.limits)),
        profile=key.profile,
        created_at=key.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
        replaced_by=key.replaced_by,
    )


def minted(minted: Minted, now: float) -> schema.MintedKeyBody:
    replaced = minted.replaced
    return schema.MintedKeyBody(
        key=minted.text,
        api_key=body(minted.key, now),
        replaces=None if replaced is None else body(replaced, now),
    )


def keys(page: Page[ApiKey], now: float) -> schema.KeyList:
    data = [body(key, now) for key in page.data]
    return schema.KeyList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )


def audit(page: Page[AuditEntry]) -> schema.AuditList:
    data = [
        schema.AuditEntryBody(
            id=entry.id,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            tenant=entry.tenant,
            target=entry.target,
            request_id=entry.request_id,
            client=entry.client,
            detail=dict(entry.detail),
        )
        for entry in page.data
    ]
    return schema.AuditList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )
