"""Strict JSON bodies: a string is not a number, an unknown field is an error, NaN is not JSON.

Litestar converts what `json()` returns to the type of the handler's `data`, and is lax about it ("5" becomes 5). So
`json()` here decodes to that type itself, strictly, and leaves nothing to convert.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException
from litestar.handlers import HTTPRouteHandler

from frontend.domain.errors import InvalidRequest

ARRIVES_S = 30.0
"""How long a body may take, seconds; of an upload, each piece: the server waits as long as the connection stands."""


class StrictRequest(Request[Any, Any, Any]):
    """The request class of every route. Raises msgspec.DecodeError, or msgspec.ValidationError with a path."""

    async def body(self) -> bytes:
        """Raises InvalidRequest for one that does not arrive in time, is cut off, or whose chunks are none: Litestar (2.25)
        calls the last two its own error."""
        try:
            async with asyncio.timeout(ARRIVES_S):
                return await super().body()
        except TimeoutError:
            raise late() from None
        except InternalServerException as exc:
            raise InvalidRequest("The body ended before it was whole.", code="incomplete_body") from exc

    async def json(self) -> Any:
        handler = self.scope["route_handler"]
        assert isinstance(handler, HTTPRouteHandler)
        data = handler.parsed_fn_signature.parameters["data"]
        try:
            return msgspec.json.decode(await self.body(), type=data.annotation, strict=True)
        except RecursionError as exc:
            raise msgspec.DecodeError("nested too deeply") from exc
        except UnicodeDecodeError as exc:
            raise msgspec.DecodeError(f"not UTF-8 ({exc.reason} at byte {exc.start})") from exc


def late() -> InvalidRequest:
    return InvalidRequest(f"The body did not arrive within {ARRIVES_S:g} s.", code="request_timeout")
