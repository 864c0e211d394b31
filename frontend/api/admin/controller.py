"""/v1/admin/keys and /v1/admin/audit."""

from __future__ import annotations

import time
from typing import Annotated, Any

from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from frontend.api.admin import mapping, schema
from frontend.domain.conversations import PageRequest
from frontend.domain.profiles import Profiles
from frontend.http.auth import needs
from frontend.http.errors import RESPONSES
from frontend.http.pagination import Limit, page_of
from frontend.services.keys.management import KeyService

AnyRequest = Request[Any, Any, Any]
Keys = NamedDependency[KeyService]
Tenant = Annotated[
    str | None, QueryParameter(pattern=r"^[a-z0-9_-]{1,64}$(?!\n)", description="Only what is of this tenant.")
]
BeforeEntry = Annotated[
    int | None, QueryParameter(ge=1, le=2**63 - 1, description="Only entries with a smaller id: the page behind.")
]
MISSING = {404: RESPONSES[404]}


class KeyController(Controller):
    path = "/v1/admin/keys"
    tags = ("Admin",)
    opt = needs("admin")

    @post(status_code=200, responses={403: RESPONSES[403]})
    async def create(
        self, data: JSONBody[schema.CreateKey], request: AnyRequest, keys: Keys, profiles: NamedDependency[Profiles]
    ) -> schema.MintedKeyBody:
        """A key, shown once. It cannot do more, or longer, than the key that makes it."""
        made = await keys.create(mapping.minter_of(request), mapping.to_new(data, profiles))
        return mapping.minted(made, time.time())

    @get(dependencies={"page": page_of()})
    async def list(self, keys: Keys, page: NamedDependency[PageRequest], tenant: Tenant = None) -> schema.KeyList:
        """The keys of all tenants, or of one, by creation; also those that have ended."""
        return mapping.keys(await keys.page(tenant, page), time.time())

    @get("/{key_id:str}", responses=MISSING)
    async def retrieve(self, key_id: FromPath[str], keys: Keys) -> schema.KeyBody:
        """One of them."""
        return mapping.body(await keys.get(key_id), time.time())

    @post("/{key_id:str}/rotate", status_code=200, responses=MISSING | {403: RESPONSES[403]})
    async def rotate(
        self, key_id: FromPath[str], data: JSONBody[schema.RotateKey], request: AnyRequest, keys: Keys
    ) -> schema.MintedKeyBody:
        """A key in its place, shown once; the old one works for `overlap_s` more."""
        made = await keys.rotate(
            mapping.minter_of(request), key_id, overlap_s=data.overlap_s, expires_in_s=data.expires_in_s
        )
        return mapping.minted(made, time.time())

    @post("/{key_id:str}/revoke", status_code=200, responses=MISSING)
    async def revoke(self, key_id: FromPath[str], request: AnyRequest, keys: Keys) -> schema.KeyBody:
        """It is refused from now on, by every process within a second. There is no way back."""
        return mapping.body(await keys.revoke(mapping.minter_of(request), key_id), time.time())


class AuditController(Controller):
    path = "/v1/admin/audit"
    tags = ("Admin",)
    opt = needs("admin")

    @get()
    async def list(
        self, keys: Keys, tenant: Tenant = None, before: BeforeEntry = None, limit: Limit = 20
    ) -> schema.AuditList:
        """What was done to keys, the newest first."""
        return mapping.audit(await keys.audit(tenant, before=before, limit=limit))
