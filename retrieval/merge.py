"""Passages of one file that overlap, as one: overlapping chunks would say the same words twice. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A passage of a file."""

    file_id: str
    start: int
    end: int
    text: str
    """The file's own from `start` to `end`, characters."""
    score: float


class Merged(msgspec.Struct, frozen=True):
    """One passage in place of those that it is made of."""

    span: Span
    """Its score: the best of theirs."""
    parts: Sequence[int]
    """Which those are, counted from 0 in the list that was merged, the best ranked first."""


def merge(spans: Sequence[Span]) -> list[Merged]:
    """Those that overlap or touch become one, in the place of the best ranked of them. `spans`: the best first.

    A span whose text is not as long as its range stays alone: what it has in common with others cannot be told.
    """
    groups: list[list[int]] = []
    for n in sorted(range(len(spans)), key=lambda n: (spans[n].file_id, spans[n].start, spans[n].end)):
        if groups and _meet(spans, groups[-1], n):
            groups[-1].append(n)
        else:
            groups.append([n])
    return [_joined(spans, group) for group in sorted(groups, key=min)]


def _meet(spans: Sequence[Span], group: Sequence[int], n: int) -> bool:
    last, span = spans[group[-1]], spans[n]
    return (
        last.file_id == span.file_id
        and span.start <= max(spans[m].end for m in group)
        and all(len(s.text) == s.end - s.start for s in (last, span))
    )


def _joined(spans: Sequence[Span], group: Sequence[int]) -> Merged:
    """`group`: in the order of their starts."""
    first = spans[group[0]]
    text, end = first.text, first.end
    for span in (spans[n] for n in group[1:]):
        if span.end > end:
            text += span.text[end - span.start :]
            end = span.end
    score = max(spans[n].score for n in group)
    return Merged(Span(first.file_id, first.start, end, text, score), sorted(group))
