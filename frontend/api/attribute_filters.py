"""Filters over the attributes of files, on the wire: those of a search and those of the tool file_search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from frontend.domain.documents import AttributeFilter, Comparison, Compound
from frontend.domain.errors import InvalidRequest

MOST_COMPARISONS, MOST_DEPTH = 64, 8

Key = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=512)]


class Comparing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    key: Key


class Eq(Comparing, frozen=True, kw_only=True, tag="eq"):
    value: Text | float | bool


class Ne(Comparing, frozen=True, kw_only=True, tag="ne"):
    value: Text | float | bool


class Gt(Comparing, frozen=True, kw_only=True, tag="gt"):
    value: Text | float


class Gte(Comparing, frozen=True, kw_only=True, tag="gte"):
    value: Text | float


class Lt(Comparing, frozen=True, kw_only=True, tag="lt"):
    value: Text | float


class Lte(Comparing, frozen=True, kw_only=True, tag="lte"):
    value: Text | float


class In(Comparing, frozen=True, kw_only=True, tag="in"):
    value: Annotated[list[Text | float], Meta(max_length=256)]


class Nin(Comparing, frozen=True, kw_only=True, tag="nin"):
    value: Annotated[list[Text | float], Meta(max_length=256)]


class And(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="and"):
    filters: Annotated[list[Filter], Meta(min_length=1, max_length=MOST_COMPARISONS)]


class Or(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="or"):
    filters: Annotated[list[Filter], Meta(min_length=1, max_length=MOST_COMPARISONS)]


Filter = Eq | Ne | Gt | Gte | Lt | Lte | In | Nin | And | Or


def to_filter(data: Filter | None, param: str = "filters") -> AttributeFilter | None:
    """Raises InvalidRequest for one that is too deep or too large."""
    if data is None:
        return None
    if sum(1 for _ in comparisons(data, param)) > MOST_COMPARISONS:
        raise InvalidRequest(f"Invalid value for '{param}': at most {MOST_COMPARISONS} comparisons.", param=param)
    return converted(data)


def comparisons(data: Filter, param: str, depth: int = 1) -> Iterator[Comparing]:
    if depth > MOST_DEPTH:
        raise InvalidRequest(f"Invalid value for '{param}': at most {MOST_DEPTH} filters in one another.", param=param)
    if isinstance(data, And | Or):
        for each in data.filters:
            yield from comparisons(each, param, depth + 1)
    else:
        yield data


def converted(data: Filter) -> AttributeFilter:
    if isinstance(data, And):
        return Compound(type="and", filters=[converted(each) for each in data.filters])
    if isinstance(data, Or):
        return Compound(type="or", filters=[converted(each) for each in data.filters])
    kind = KINDS[type(data)]
    return msgspec.convert({"kind": "comparison", "type": kind, "key": data.key, "value": data.value}, Comparison)


KINDS: dict[type[Comparing], str] = {
    Eq: "eq",
    Ne: "ne",
    Gt: "gt",
    Gte: "gte",
    Lt: "lt",
    Lte: "lte",
    In: "in",
    Nin: "nin",
}
