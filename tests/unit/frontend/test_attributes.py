"""Filters over the attributes of files."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from frontend.domain.attributes import meets, merged
from frontend.domain.documents import AttributeValue, Comparison, Compound

FILE: dict[str, AttributeValue] = {"n": 5.0, "s": "b", "yes": True, "zero": 0.0}

CASES: list[tuple[str, str, AttributeValue | Sequence[str | float], bool]] = [
    ("eq", "n", 5, True),
    ("eq", "n", 5.0, True),
    ("eq", "n", "5", False),
    ("eq", "n", [5.0], True),
    ("eq", "yes", True, True),
    ("eq", "yes", 1, False),
    ("eq", "zero", False, False),
    ("eq", "none", 5, False),
    ("ne", "n", 5, False),
    ("ne", "n", 6, True),
    ("ne", "n", "5", True),
    ("ne", "yes", 1, True),
    ("ne", "none", 5, True),
    ("gt", "n", 4.9, True),
    ("gt", "n", 5, False),
    ("gte", "n", 5, True),
    ("lt", "n", 5, False),
    ("lte", "n", 5, True),
    ("lt", "n", "6", False),
    ("gt", "n", "4", False),
    ("gt", "n", False, False),
    ("gt", "yes", False, False),
    ("gt", "yes", 0, False),
    ("gt", "s", "a", True),
    ("lt", "s", "c", True),
    ("lt", "s", "B", False),
    ("gt", "none", 0, False),
    ("lte", "none", 0, False),
    ("gt", "n", [1.0], False),
    ("in", "n", [4, 5], True),
    ("in", "n", ["5"], False),
    ("in", "s", ["a", "b"], True),
    ("in", "s", "b", True),
    ("in", "yes", [1.0], False),
    ("in", "s", [], False),
    ("in", "none", [5], False),
    ("nin", "n", [4, 5], False),
    ("nin", "n", ["5"], True),
    ("nin", "s", [], True),
    ("nin", "none", [5], True),
]


@pytest.mark.parametrize(("how", "key", "value", "expected"), CASES)
def test_a_comparison(how: str, key: str, value: AttributeValue | Sequence[str | float], expected: bool) -> None:
    """Numbers are one type, true and false are none of them; a missing attribute meets `ne` and `nin` only."""
    assert meets(FILE, Comparison(how, key, value)) is expected  # type: ignore[arg-type]  # one of the eight


def test_comparisons_are_joined() -> None:
    """By `and`, by `or`, within each other; none at all meet `and` and not `or`."""
    true, false = Comparison("eq", "n", 5), Comparison("eq", "n", 6)
    assert meets(FILE, Compound("and", [true, true]))
    assert not meets(FILE, Compound("and", [true, false]))
    assert meets(FILE, Compound("or", [false, true]))
    assert not meets(FILE, Compound("or", [false, false]))
    assert meets(FILE, Compound("and", [true, Compound("or", [false, Compound("and", [true])])]))
    assert meets(FILE, Compound("and", []))
    assert not meets(FILE, Compound("or", []))


def test_adjoining_ranges_become_one() -> None:
    """The others stay apart, in their order."""
    assert merged([]) == []
    assert merged([(1, 2)]) == [(1, 2)]
    assert merged([(1, 2), (3, 3), (5, 9), (10, 12)]) == [(1, 3), (5, 12)]
