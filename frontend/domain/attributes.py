"""Which files a search may look into: filters over their attributes, and what they leave of a store's log."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

from frontend.domain.documents import AttributeFilter, AttributeValue, Comparison, Compound
from retrieval.types import Range

ORDERINGS: dict[str, Callable[[str | float, str | float], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def meets(attributes: Mapping[str, AttributeValue], filters: AttributeFilter) -> bool:
    """A file without the attribute meets `ne` and `nin`, and nothing else. Values of different types are never equal, and
    neither is above the other; numbers are of one type, and true and false are none of them."""
    if isinstance(filters, Compound):
        every = all if filters.type == "and" else any
        return every(meets(attributes, each) for each in filters.filters)
    value = attributes.get(filters.key)
    negated = filters.type in ("ne", "nin")
    if value is None:
        return negated
    if filters.type in ("eq", "ne", "in", "nin"):
        return any(same(value, wanted) for wanted in several(filters)) != negated
    return compares(filters.type, value, filters.value)


def several(comparison: Comparison) -> Sequence[AttributeValue]:
    value = comparison.value
    return (value,) if isinstance(value, str | float | int) else value


def same(one: AttributeValue, other: AttributeValue) -> bool:
    return kind(one) is kind(other) and one == other


def compares(how: str, one: AttributeValue, other: object) -> bool:
    """Numbers by size, texts by their characters."""
    if kind(one) is bool or kind(one) is not kind(other):
        return False
    return ORDERINGS[how](one, other)  # type: ignore[arg-type]  # of one kind, as has just been seen


def kind(value: object) -> type:
    return float if type(value) is int else type(value)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """`ranges` in ascending order without overlap, those that adjoin as one."""
    together: list[Range] = []
    for first, last in ranges:
        if together and together[-1][1] + 1 == first:
            together[-1] = (together[-1][0], last)
        else:
            together.append((first, last))
    return together
