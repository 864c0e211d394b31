"""The guard on every route: a known key, unless the route says that it is public."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from frontend.domain.principal import Principal

PUBLIC = {"public": True}
"""`opt=PUBLIC` on a handler opens it; nothing else does."""


def is_public(handler: BaseRouteHandler) -> bool:
    return handler.opt.get("public") is True


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Decides on the matched handler. Raises Unauthenticated, Unavailable."""
    if is_public(handler):
        return
    principal = await connection.app.state.runtime.api_keys.authenticate(connection.headers.get("authorization"))
    connection.scope["user"] = principal
    connection.scope.setdefault("state", {})["tenant"] = principal.tenant


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    principal = connection.scope["user"]
    assert isinstance(principal, Principal)
    return principal
