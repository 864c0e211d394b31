"""/v1/sessions."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from frontend.api.scopes import require_for_context
from frontend.api.sessions import mapping, schema
from frontend.domain.seal import Seal
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.services.sessions import SessionService

AnyRequest = Request[Any, Any, Any]
Sessions = NamedDependency[SessionService]
MISSING = {404: RESPONSES[404]}


class SessionController(Controller):
    path = "/v1/sessions"
    tags = ("Sessions",)
    opt = needs("conversations")

    @post(status_code=200, responses=MISSING)
    async def create(
        self,
        data: JSONBody[schema.CreateSession],
        request: AnyRequest,
        sessions: Sessions,
        seal: NamedDependency[Seal],
    ) -> schema.SessionBody:
        """A handle on a conversation, its own or a new one, for the header X-Session-ID. It ends by itself."""
        require_for_context(principal_of(request), data.context)
        tenant = principal_of(request).tenant
        return mapping.body(await sessions.create(tenant, mapping.to_new(data, seal.of(tenant))))

    @get("/{session_id:str}", responses=MISSING)
    async def retrieve(self, session_id: FromPath[str], request: AnyRequest, sessions: Sessions) -> schema.SessionBody:
        """How long it lasts, and which conversation it leads to. To look is not to use it."""
        return mapping.body(await sessions.get(principal_of(request).tenant, session_id))

    @delete("/{session_id:str}", status_code=200, responses=MISSING)
    async def remove(self, session_id: FromPath[str], request: AnyRequest, sessions: Sessions) -> schema.SessionDeleted:
        """Ends it; the conversation stays."""
        await sessions.delete(principal_of(request).tenant, session_id)
        return schema.SessionDeleted(id=session_id)
