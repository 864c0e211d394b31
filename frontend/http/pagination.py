"""Query parameters of lists: which page, which metadata, what to include. Knows no resource."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any
from urllib.parse import parse_qsl

from litestar import Request
from litestar.di import Provide
from litestar.params import QueryParameter

from frontend.domain.conversations import Order, PageRequest
from frontend.domain.errors import InvalidRequest

MOST = 100
MOST_FIELDS = 64
"""Fields of a query string that is looked into."""
MOST_KEYS, MOST_KEY_CHARS, MOST_VALUE_CHARS = 16, 64, 512
"""OpenAI's bounds of metadata."""
ID = r"^[A-Za-z0-9._-]{1,128}$(?!\n)"
METADATA = re.compile(r"metadata\[(.+)\]", re.DOTALL)

Limit = Annotated[int, QueryParameter(ge=1, le=MOST, description=f"How many, at most {MOST}.")]
Sorting = Annotated[Order, QueryParameter(description="By creation: asc is oldest first.")]
After = Annotated[str | None, QueryParameter(pattern=ID, description="The id that the page before ended with.")]


def page_of(*, limit: int = 20, order: Order = "desc") -> Provide:
    """A dependency on the PageRequest of `limit`, `order` and `after`; what is given here is their default."""
    default_limit, default_order = limit, order

    def page(limit: Limit = default_limit, order: Sorting = default_order, after: After = None) -> PageRequest:
        return PageRequest(after=after, limit=limit, order=order)

    return Provide(page, sync_to_thread=False)


def metadata_of(request: Request[Any, Any, Any]) -> dict[str, str]:
    """What a list's objects must have in their metadata: `metadata[topic]=travel`, as the SDKs write it.

    Raises InvalidRequest.
    """
    try:
        fields = parse_qsl(
            request.scope["query_string"].decode("latin-1"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError as exc:  # UnicodeDecodeError is one
        raise InvalidRequest("The query string cannot be read: too many fields, or not UTF-8.") from exc
    wanted: dict[str, str] = {}
    for name, value in fields:
        if not name.startswith("metadata"):
            continue
        match = METADATA.fullmatch(name)
        if match is None or len(match[1]) > MOST_KEY_CHARS or len(value) > MOST_VALUE_CHARS:
            raise InvalidRequest(
                f"Invalid value for 'metadata': 'metadata[KEY]=VALUE' was expected, with at most {MOST_KEY_CHARS} and"
                f" {MOST_VALUE_CHARS} characters.",
                param="metadata",
            )
        if wanted.setdefault(match[1], value) != value:
            raise InvalidRequest("Invalid value for 'metadata': one key has one value.", param="metadata")
    if len(wanted) > MOST_KEYS:
        raise InvalidRequest(f"Invalid value for 'metadata': at most {MOST_KEYS} keys.", param="metadata")
    return wanted


METADATA_FILTER = Provide(metadata_of, sync_to_thread=False)


Include = Annotated[
    list[str] | None, QueryParameter(name="include[]", description="What else to show: the SDKs' spelling.")
]
BareInclude = Annotated[list[str] | None, QueryParameter(name="include", description="The same without brackets.")]


def include_of(known: Collection[str]) -> Provide:
    """A dependency on the set of what is to be included; `known`: what may be asked for."""

    def include(bracketed: Include = None, bare: BareInclude = None) -> frozenset[str]:
        asked = frozenset([*(bracketed or ()), *(bare or ())])
        if unknown := asked.difference(known):
            raise InvalidRequest(
                f"Invalid value for 'include': {min(unknown)!r}; supported are: {', '.join(known)}.", param="include"
            )
        return asked

    return Provide(include, sync_to_thread=False)
