"""retrieval/fulltext.py: any text is a query, words are found and gone when they should be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.fulltext import MOST_QUERIES, MOST_WORDS, FullText, telling
from retrieval.types import Chunk

NOTHING = np.empty((0, 8), np.float16)


def chunk(seq: int, text: str) -> Chunk:
    return Chunk(seq, text, NOTHING)


@pytest.fixture
def words() -> FullText:
    found = FullText()
    found.apply(
        (), [chunk(1, "the cat sat"), chunk(2, "cats and dogs dogs"), chunk(3, "Zürich, a town"), chunk(4, "dogs")]
    )
    return found


@settings(deadline=None)
@given(text=st.text())
def test_any_text_is_a_query(text: str) -> None:
    """No text makes a broken query, whatever FTS5's language makes of it."""
    FullText().best(text, 10, None)


@pytest.mark.parametrize(
    "text",
    [
        '"',
        "'; DROP TABLE chunks --",
        "cat* NEAR(dogs, 2)",
        "text : dogs",
        "^cat",
        "a\0b",
        "- + ( )",
        "AND OR NOT",
        "\ud800",
    ],
)
def test_operators_are_words(words: FullText, text: str) -> None:
    """What means something to FTS5 means nothing here, and what is stored stays."""
    words.best(text, 10, None)
    assert words.best("zurich", 10, None) == [3]


def test_words_match_in_other_forms(words: FullText) -> None:
    """Number and accents do not matter."""
    assert set(words.best("CAT", 10, None)) == {1, 2}
    assert words.best("zurich towns", 10, None) == [3]


def test_the_better_match_is_first(words: FullText) -> None:
    """A chunk with nothing but the word comes before one that has others, too."""
    assert words.best("dog", 10, None) == [4, 2]


def test_stop_words_count_only_alone(words: FullText) -> None:
    """They find nothing beside a telling word; a question of nothing else is still asked."""
    assert words.best("what is the town", 10, None) == [3]
    assert words.best("the", 10, None) == [1]


def test_long_queries_are_cut() -> None:
    """So that one query cannot walk through the whole store for every word of a book."""
    assert len(telling(" ".join(f"w{n}" for n in range(1000)))) == MOST_WORDS


def test_removed_words_are_gone(words: FullText) -> None:
    """Ranges go with what is in them; the numbers around them stay."""
    words.apply([(2, 3), (4, 4)], [chunk(5, "one dog")])
    assert words.best("dogs", 10, None) == [5]
    assert words.best("zurich", 10, None) == []
    assert words.best("cat", 10, None) == [1]


@pytest.mark.parametrize("ranges", [3, MOST_QUERIES + 3])
def test_filters_leave_the_ranking(ranges: int) -> None:
    """What a filter leaves is in the order that it has without one, whether the ranges are few or many."""
    words, chance = FullText(), np.random.default_rng(1)
    words.apply((), [chunk(seq, "dog " * int(chance.integers(1, 9)) + "x " * seq) for seq in range(1, 201)])
    allowed = [(seq, seq + 2) for seq in range(1, 7 * ranges, 7)]
    everything = words.best("dog", 200, None)
    wanted = [seq for seq in everything if any(first <= seq <= last for first, last in allowed)]
    assert words.best("dog", 5, allowed) == wanted[:5]
    assert words.best("dog", 500, allowed) == wanted


def test_it_knows_its_size(words: FullText) -> None:
    """More text is more memory."""
    before = words.size_bytes
    words.apply((), [chunk(10, "word " * 100_000)])
    assert words.size_bytes > before + 400_000


def test_words_that_are_everywhere_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a large store the rare words of a query choose; a query of frequent ones alone still finds, and so does a filter
    that leaves little."""
    monkeypatch.setattr("retrieval.fulltext.MOST_MATCHES", 20)
    words = FullText()
    words.apply((), [chunk(seq, "dog rare" if seq in (7, 70) else "dog") for seq in range(1, 101)])
    assert set(words.best("dog rare", 100, None)) == {7, 70}
    assert len(words.best("dog", 100, None)) == 100
    assert set(words.best("dog rare", 100, [(65, 75)])) == set(range(65, 76))
    words.apply([(1, 90)], ())
    assert set(words.best("dog rare", 100, None)) == set(range(91, 101))
