"""retrieval/merge.py: overlapping passages of a file are one, and say nothing twice."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.merge import Span, merge

FILES = {"a": "".join(chr(0x4E00 + n) for n in range(200)), "b": "".join(chr(0x5E00 + n) for n in range(200))}


def span(file_id: str, start: int, end: int, score: float = 0.5) -> Span:
    return Span(file_id, start, end, FILES[file_id][start:end], score)


SPANS = st.lists(
    st.builds(
        lambda file_id, start, length, score: span(file_id, start, start + length, score),
        st.sampled_from(["a", "b"]),
        st.integers(0, 150),
        st.integers(1, 50),
        st.floats(0, 1),
    )
)


@settings(deadline=None)
@given(spans=SPANS)
def test_merged_text_is_the_files_own(spans: list[Span]) -> None:
    """A merged passage is the file's text from its start to its end, and has the best score of its parts."""
    for merged in merge(spans):
        one = merged.span
        assert one.text == FILES[one.file_id][one.start : one.end]
        assert one.score == max(spans[n].score for n in merged.parts)


@settings(deadline=None)
@given(spans=SPANS)
def test_every_passage_is_in_exactly_one(spans: list[Span]) -> None:
    """Nothing is lost, and passages of a file that are left have a gap between them."""
    result = merge(spans)
    assert sorted(n for merged in result for n in merged.parts) == list(range(len(spans)))
    for merged in result:
        assert all(merged.span.start <= spans[n].start and spans[n].end <= merged.span.end for n in merged.parts)
    ordered = sorted((m.span for m in result), key=lambda one: (one.file_id, one.start))
    for one, other in itertools.pairwise(ordered):
        assert one.file_id != other.file_id or one.end < other.start


@settings(deadline=None)
@given(spans=SPANS)
def test_order_is_that_of_the_best_parts(spans: list[Span]) -> None:
    """A merged passage stands where the best ranked of its parts stood."""
    places = [merged.parts[0] for merged in merge(spans)]
    assert places == sorted(places)


def test_a_passage_that_is_not_a_range_of_characters_stays_alone() -> None:
    """Where start and end do not measure the text, overlap cannot be cut out."""
    spans = [Span("a", 0, 10, "not ten", 0.5), span("a", 5, 15)]
    assert [merged.parts for merged in merge(spans)] == [[0], [1]]
