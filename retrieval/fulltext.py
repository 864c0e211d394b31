"""The words of one store, ranked by BM25: FTS5 of the standard library's SQLite, in memory."""

from __future__ import annotations

import re
import sqlite3
import weakref
from collections.abc import Iterator, Sequence

from retrieval import ranges
from retrieval.types import Chunk, Range

TOKENIZER = "porter unicode61 remove_diacritics 2"
MOST_WORDS = 64
"""Of a query: each costs a walk through all chunks that have it."""
MOST_MATCHES = 20_000
"""In a larger store, words that are in many chunks are left out where rarer ones are in so many already: ranking takes about
2 us for each chunk that has a word, and a word that is everywhere tells nothing."""
MOST_COUNTS = 10_000
"""Words of which it is remembered how many chunks have them."""
MOST_QUERIES = 16
"""A filter of so many ranges is asked for one range at a time; of more, all that is found is filtered."""
WORD = re.compile(r"\w+")
STOP_WORDS = frozenset(
    WORD.findall(
        """
        a about above after again against all also am an and any are as at be because been before being below between both
        but by can could did do does doing down during each few for from further had has have having he her here hers
        herself him himself his how i if in into is it its itself just me more most my myself no nor not now of off on once
        only or other our ours ourselves out over own s same she should so some such t than that the their theirs them
        themselves then there these they this those through to too under until up very was we were what when where which
        while who whom why will with would you your yours yourself yourselves
        """
    )
)
"""English ones: in nearly every chunk, so that they cost most and tell least."""


class FullText:
    """Blocking; one thread at a time."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._connection.close)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(f"CREATE VIRTUAL TABLE chunks USING fts5 (text, tokenize = '{TOKENIZER}')")
        self._rows = 0
        self._counts: dict[str, int] = {}
        """Of words, how many chunks have them, or had when there were about as many chunks as now."""
        self._counted_at = 0

    @property
    def size_bytes(self) -> int:
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(size)

    def apply(self, removed: Sequence[Range], added: Sequence[Chunk]) -> None:
        """All of it, or an exception after which this one is worth nothing."""
        self._connection.execute("BEGIN")
        gone = self._connection.executemany("DELETE FROM chunks WHERE rowid BETWEEN ? AND ?", removed).rowcount
        self._connection.executemany(
            "INSERT INTO chunks (rowid, text) VALUES (?, ?)", ((chunk.seq, chunk.text) for chunk in added)
        )
        self._connection.execute("COMMIT")
        self._rows += len(added) - max(0, gone)
        if not self._counted_at / 2 <= self._rows <= self._counted_at * 2:
            self._counts.clear()
            self._counted_at = self._rows

    def best(self, text: str, k: int, allowed: Sequence[Range] | None) -> list[int]:
        """Numbers of the k best chunks that have a word of `text`, best first; fewer if fewer have one."""
        words = telling(text)
        if min(self._rows, ranges.span(allowed)) > MOST_MATCHES:
            words = self._rarest(words)
        if not (query := expression(words)):
            return []
        if allowed is None:
            found = list(self._ranked(query, None, k))
        elif len(allowed) <= MOST_QUERIES:
            found = sorted(pair for bounds in allowed for pair in self._ranked(query, bounds, k))
        else:
            found = self._filtered(query, k, allowed)
        return [seq for _, seq in found[:k]]

    def _rarest(self, words: Sequence[str]) -> list[str]:
        """As many as MOST_MATCHES allows, and one at least."""
        total = 0
        chosen: list[str] = []
        for count, word in sorted((self._count(word), word) for word in words):
            total += count
            if chosen and total > MOST_MATCHES:
                break
            if count:
                chosen.append(word)
        return chosen

    def _count(self, word: str) -> int:
        """Chunks that have it, counted as far as MOST_MATCHES + 1 (2 ms)."""
        if (count := self._counts.get(word)) is None:
            (count,) = self._connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM chunks WHERE chunks MATCH ? LIMIT ?)",
                (expression([word]), MOST_MATCHES + 1),
            ).fetchone()
            if len(self._counts) >= MOST_COUNTS:
                self._counts.clear()
            self._counts[word] = count
        return count

    def _filtered(self, query: str, k: int, allowed: Sequence[Range]) -> list[tuple[float, int]]:
        found = []
        for pair in self._ranked(query, (allowed[0][0], allowed[-1][1]), -1):
            if ranges.holds(allowed, pair[1]):
                found.append(pair)
                if len(found) == k:
                    break
        return found

    def _ranked(self, query: str, bounds: Range | None, most: int) -> Iterator[tuple[float, int]]:
        """Rank (the smaller, the better) and number. `most`: -1 for all."""
        first, last = bounds or (0, 2**62)
        return self._connection.execute(
            "SELECT rank, rowid FROM chunks WHERE chunks MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rank LIMIT ?",
            (query, first, last, most),
        )


def telling(text: str) -> list[str]:
    """The words of any text, each once, without stop words; unless there is nothing else: "to be or not to be" is somebody's
    question."""
    words = list(dict.fromkeys(WORD.findall(text.lower())))
    return ([word for word in words if word not in STOP_WORDS] or words)[:MOST_WORDS]


def expression(words: Sequence[str]) -> str:
    """A query of FTS5 for any of them; "" for none. Each is quoted, so that none is an operator."""
    return " OR ".join(f'"{word}"' for word in words)
