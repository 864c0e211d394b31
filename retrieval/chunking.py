"""A text cut into chunks by tokens, and each chunk into the windows that the embedding model reads. Knows no tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

WIDEST_TOKEN = 20
"""Characters. A word that a WordPiece model does not know is one token however long it is, and would make one endless chunk
of a file that is one line of base64: a wider token is counted as several."""


class Tokens(msgspec.Struct, frozen=True):
    """A text as its tokenizer reads it, without control tokens."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]
    """Of each token: its first character, and the one behind its last."""


class Piece(msgspec.Struct, frozen=True):
    text: str
    """Exactly `whole[start:end]`."""
    start: int
    end: int
    windows: Sequence[Sequence[int]]
    """The token ids of each window, without control tokens."""


def cut(text: str, tokens: Tokens, *, max_tokens: int, overlap: int, window_tokens: int) -> list[Piece]:
    """OpenAI's static strategy: chunks of `max_tokens`, of which the last `overlap` are the first of the next one.

    The last chunk is shorter, and none lies wholly in the one before: the first that reaches the end is the last. A text
    without tokens has no chunks.
    Raises ValueError if `overlap` is not below `max_tokens`, or a length is not positive.
    """
    if not (0 <= overlap < max_tokens and window_tokens > 0):
        raise ValueError(f"no chunks of {max_tokens} tokens with {overlap} in common, in windows of {window_tokens}")
    tokens = narrowed(tokens)
    return [
        _piece(text, tokens, first, last, window_tokens) for first, last in _spans(len(tokens.ids), max_tokens, overlap)
    ]


def narrowed(tokens: Tokens) -> Tokens:
    """The same with every token that is wider than WIDEST_TOKEN in as many as it takes."""
    if all(end - start <= WIDEST_TOKEN for start, end in tokens.offsets):
        return tokens
    ids, offsets = [], []
    for id_, (start, end) in zip(tokens.ids, tokens.offsets, strict=True):
        for place in range(start, max(end, start + 1), WIDEST_TOKEN):
            ids.append(id_)
            offsets.append((place, min(place + WIDEST_TOKEN, end)))
    return Tokens(ids, offsets)


def windows(ids: Sequence[int], most: int) -> list[Sequence[int]]:
    """`ids` in as few windows of at most `most` as there can be, all of nearly the same length: a window of the few tokens
    that would be left at the end has a vector that is like nothing, or like anything."""
    count = -(-len(ids) // most)
    return [ids[len(ids) * n // count : len(ids) * (n + 1) // count] for n in range(count)]


def _spans(total: int, max_tokens: int, overlap: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, max_tokens - overlap):
        yield first, min(first + max_tokens, total)
        if first + max_tokens >= total:
            return


def _piece(text: str, tokens: Tokens, first: int, last: int, window_tokens: int) -> Piece:
    start, end = tokens.offsets[first][0], tokens.offsets[last - 1][1]
    return Piece(text[start:end], start, end, windows(tokens.ids[first:last], window_tokens))
