"""retrieval/chunking.py: chunks of exactly so many tokens, cut where tokens are, and windows that the model can read."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.chunking import WIDEST_TOKEN, Piece, Tokens, cut, narrowed, windows

TEXTS = st.text("ab c\n", max_size=300)
LENGTHS = st.tuples(st.integers(1, 40), st.integers(0, 39), st.integers(1, 12)).filter(lambda each: each[1] < each[0])


def tokenized(text: str) -> Tokens:
    """Every word a token."""
    found = list(re.finditer(r"\S+", text))
    return Tokens(list(range(len(found))), [match.span() for match in found])


def cut_up(text: str, max_tokens: int, overlap: int, window_tokens: int) -> tuple[Tokens, list[Piece]]:
    tokens = narrowed(tokenized(text))
    return tokens, cut(text, tokens, max_tokens=max_tokens, overlap=overlap, window_tokens=window_tokens)


def ids(piece: Piece) -> list[int]:
    return [id_ for window in piece.windows for id_ in window]


@settings(deadline=None)
@given(text=TEXTS, lengths=LENGTHS)
def test_text_is_cut_exactly(text: str, lengths: tuple[int, int, int]) -> None:
    """A chunk's text is the text from its start to its end, and these are where its first and its last token are."""
    tokens, pieces = cut_up(text, *lengths)
    at = 0
    for piece in pieces:
        assert piece.text == text[piece.start : piece.end]
        assert (tokens.offsets[at][0], tokens.offsets[at + len(ids(piece)) - 1][1]) == (piece.start, piece.end)
        at += lengths[0] - lengths[1]


@settings(deadline=None)
@given(text=TEXTS, lengths=LENGTHS)
def test_lengths_are_exact(text: str, lengths: tuple[int, int, int]) -> None:
    """All chunks but the last have `max_tokens`, neighbours share `overlap`, and every token is in one."""
    max_tokens, overlap, _ = lengths
    tokens, pieces = cut_up(text, *lengths)
    assert all(len(ids(piece)) == max_tokens for piece in pieces[:-1])
    for before, after in itertools.pairwise(pieces):
        assert ids(before)[max_tokens - overlap :] == ids(after)[:overlap][: len(ids(after))]
    kept = [id_ for n, piece in enumerate(pieces) for id_ in ids(piece)[overlap if n else 0 :]]
    assert kept == list(tokens.ids)


@settings(deadline=None)
@given(text=TEXTS, lengths=LENGTHS)
def test_no_chunk_lies_in_the_one_before(text: str, lengths: tuple[int, int, int]) -> None:
    """Each says something that the one before does not."""
    _, pieces = cut_up(text, *lengths)
    assert all(after.end > before.end for before, after in itertools.pairwise(pieces))


@settings(deadline=None)
@given(text=TEXTS, lengths=LENGTHS)
def test_windows_fit_and_are_alike(text: str, lengths: tuple[int, int, int]) -> None:
    """No window is longer than the model reads, and none of a chunk is more than one token shorter than another."""
    for piece in cut_up(text, *lengths)[1]:
        sizes = {len(window) for window in piece.windows}
        assert max(sizes) <= lengths[2]
        assert max(sizes) - min(sizes) <= 1


def test_default_chunks_share_their_windows() -> None:
    """Chunks of 800 tokens with 400 in common have half of their windows in common: those need to be embedded once."""
    text = "a " * 2000
    pieces = cut(text, tokenized(text), max_tokens=800, overlap=400, window_tokens=254)
    assert [len(piece.windows) for piece in pieces] == [4, 4, 4, 4]
    assert all(list(a.windows[2:]) == list(b.windows[:2]) for a, b in itertools.pairwise(pieces))


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_a_text_without_words_has_no_chunks(text: str) -> None:
    """Nothing can be found in it."""
    assert cut(text, tokenized(text), max_tokens=800, overlap=400, window_tokens=254) == []


def test_one_endless_word_makes_many_chunks() -> None:
    """A word that the tokenizer takes for one token, however long, is cut as if it were many."""
    text = "x" * 100_000
    pieces = cut(text, tokenized(text), max_tokens=800, overlap=400, window_tokens=254)
    assert max(len(piece.text) for piece in pieces) == 800 * WIDEST_TOKEN
    assert pieces[-1].end == len(text)


@pytest.mark.parametrize(("max_tokens", "overlap", "window"), [(100, 100, 10), (100, -1, 10), (0, 0, 10), (100, 50, 0)])
def test_impossible_lengths_are_refused(max_tokens: int, overlap: int, window: int) -> None:
    """A chunking that would never end is an error, not a loop."""
    with pytest.raises(ValueError, match="no chunks"):
        cut("a b", tokenized("a b"), max_tokens=max_tokens, overlap=overlap, window_tokens=window)


def test_nothing_has_no_windows() -> None:
    """Of no tokens there is nothing to embed."""
    assert windows([], 10) == []
