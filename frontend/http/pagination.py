"""Query parameters of lists: which page, which metadata, what to include. Knows no resource."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.di import Provide
from litestar.params import QueryParameter

from frontend.domain.conversations import Order, PageRequest
from frontend.domain.errors import InvalidRequest

T = TypeVar("T")
MOST = 100
MOST_OF_A_LONG_LIST = 10_000
MOST_FIELDS = 64
"""Fields of a query string that is looked into."""
MOST_KEYS, MOST_KEY_CHARS, MOST_VALUE_CHARS = 16, 64, 512
"""OpenAI's bounds of metadata."""
ID = r"^[A-Za-z0-9._-]{1,128}$(?!\n)"
METADATA = re.compile(r"metadata\[(.+)\]", re.DOTALL)

Limit = Annotated[int, QueryParameter(ge=1, le=MOST, description=f"How many, at most {MOST}.")]
Sorting = Annotated[Order, QueryParameter(description="By creation: asc is oldest first.")]
After = Annotated[str | None, QueryParameter(pattern=ID, description="The id that the page before ended with.")]
Before = Annotated[str | None, QueryParameter(pattern=ID, description="The id that the page behind began with.")]
LongLimit = Annotated[
    int,
    QueryParameter(name="limit", ge=1, le=MOST_OF_A_LONG_LIST, description=f"How many, at most {MOST_OF_A_LONG_LIST}."),
]


def page_of(*, limit: int = 20, order: Order = "desc") -> Provide:
    """A dependency on the PageRequest of `limit`, `order` and `after`; what is given here is their default."""
    default_limit, default_order = limit, order

    def page(limit: Limit = default_limit, order: Sorting = default_order, after: After = None) -> PageRequest:
        return PageRequest(after=after, limit=limit, order=order)

    return Provide(page, sync_to_thread=False)


def long_page_of() -> Provide:
    """The same for a list that OpenAI shows 10,000 of, unless it is asked for less."""

    def page(limit: LongLimit = MOST_OF_A_LONG_LIST, order: Sorting = "desc", after: After = None) -> PageRequest:
        return PageRequest(after=after, limit=limit, order=order)

    return Provide(page, sync_to_thread=False)


class Turned(msgspec.Struct, frozen=True):
    """A page of a list that can be gone through in both directions."""

    request: PageRequest
    """Of what is to be read: of the other order, if the page is that before a place."""
    backwards: bool

    def shown(self, data: Sequence[T]) -> Sequence[T]:
        """What was read, in the order that was asked for."""
        return data[::-1] if self.backwards else data


def turned_page_of() -> Provide:
    """A dependency on a Turned: `limit`, `order`, and `after` or `before`."""

    def page(limit: Limit = 20, order: Sorting = "desc", after: After = None, before: Before = None) -> Turned:
        if before is None:
            return Turned(PageRequest(after=after, limit=limit, order=order), backwards=False)
        if after is not None:
            raise InvalidRequest("'after' and 'before' cannot be given together.", param="before")
        other: Order = "asc" if order == "desc" else "desc"
        return Turned(PageRequest(after=before, limit=limit, order=other), backwards=True)

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
