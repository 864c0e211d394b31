"""Strict JSON bodies: a string is not a number, an unknown field is an error, NaN is not JSON.

Litestar converts what `json()` returns to the type of the handler's `data`, and is lax about it ("5" becomes 5). So
`json()` here decodes to that type itself, strictly, and leaves nothing to convert.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler


class StrictRequest(Request[Any, Any, Any]):
    """The request class of every route. Raises msgspec.DecodeError, or msgspec.ValidationError with a path."""

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
