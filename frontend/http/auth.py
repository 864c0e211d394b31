"""The guard on every route: a known key with the scope that the route needs, unless the route says that it is public."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from frontend.domain.errors import Forbidden
from frontend.domain.principal import Principal, Scope

log = structlog.get_logger("hermes2.auth")
PUBLIC = {"public": True}
"""`opt=PUBLIC` on a handler opens it; nothing else does."""
ANY_KEY = {"scope": "any"}
"""For what tells nothing but the methods of a route."""


def needs(scope: Scope, *, gated: bool = False) -> Mapping[str, object]:
    """`opt=needs(...)` on a controller or a handler; one that has neither this nor PUBLIC is closed to everybody.

    `gated`: its requests go through the gate themselves, when their tokens are known; all others are counted here.
    """
    return {"scope": scope, "gated": gated}


def is_public(handler: BaseRouteHandler) -> bool:
    return handler.opt.get("public") is True


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Decides on the matched handler. Raises Unauthenticated, Forbidden, RateLimited, Unavailable."""
    if is_public(handler):
        return
    runtime = connection.app.state.runtime
    principal: Principal = await runtime.api_keys.authenticate(connection.headers.get("authorization"))
    connection.scope["user"] = principal
    state = connection.scope.setdefault("state", {})
    state["tenant"], state["key_id"], state["standing"] = principal.tenant, principal.key_id, principal.standing
    state["record"] = principal.record
    scope = handler.opt.get("scope")
    if scope is None:
        log.error("route_without_scope", route=connection.scope.get("path_template"))
        raise Forbidden("This route is closed.")
    if scope == "admin" and not principal.may("admin"):
        # In the log alone: an entry of the audit log for each would let any key fill the database.
        log.warning(
            "admin_denied",
            key_id=principal.key_id,
            tenant=principal.tenant,
            route=connection.scope.get("path_template"),
        )
    if scope != "any":
        principal.require(scope)
    if not handler.opt.get("gated"):
        await runtime.gate.count(principal)


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    principal = connection.scope["user"]
    assert isinstance(principal, Principal)
    return principal
