"""Which passages an answer rests on: a pure function of its text and of the passages that the model was given.

The rule, which no model takes part in:

1. `[2]`, or each number in `[1, 3]`, that is the label of a passage cites it, at the bracket.
2. A sentence without such a marker cites the one passage that holds the most of its content words, at its last character, if
   it has at least LEAST_WORDS of them and the passage holds LEAST_SHARE of them. Of equal passages, the better ranked.

Content words are words of three or more letters or digits that are not among the commonest of English, and numbers; each
counts once, whatever its case. Sentences end with a `.`, `!` or `?` before white space, or with their line. A file is cited
once at one place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from frontend.domain.citations import FileCitation
from frontend.domain.items import FileSearchResult
from retrieval.fulltext import STOP_WORDS

LEAST_WORDS = 4
LEAST_SHARE = 0.6
MARKER = re.compile(r"\[(\d{1,3}(?:\s?,\s?\d{1,3}){0,15})\]")
SENTENCE = re.compile(r"\S.*?(?:[.!?]+(?=\s|$)|(?=\n)|$)", re.MULTILINE)
WORD = re.compile(r"\d+(?:[.,]\d+)*|\w{3,}")
COMMONEST = """
about above after again against all also and any are because been before being below between both but can could did does
doing down during each few for from further had has have having her here hers him his how into its just may might more most
must nor not now off once only other our out over own same she should some such than that the their them then there these
they this those through too under until upon very was were what when where which while who whom why will with would you your
"""


def cite(text: str, passages: Sequence[FileSearchResult]) -> list[FileCitation]:
    """In the order of their places. `passages`: as they were labelled, from 1 on."""
    if not passages or not text:
        return []
    words = [content_words(each.text) for each in passages]
    found: dict[tuple[int, str], FileCitation] = {}
    for index, number in sorted([*marked(text, len(passages)), *shared(text, words)]):
        passage = passages[number]
        found.setdefault((index, passage.file_id), FileCitation(passage.file_id, passage.filename, index))
    return list(found.values())


def marked(text: str, num_passages: int) -> Iterator[tuple[int, int]]:
    """Places, and the passages that are named there, counted from 0."""
    for match in MARKER.finditer(text):
        for number in map(int, match[1].split(",")):
            if 1 <= number <= num_passages:
                yield match.start(), number - 1


def shared(text: str, passages: Sequence[frozenset[str]]) -> Iterator[tuple[int, int]]:
    """The same for sentences that share their words with one of `passages`, given as their content words."""
    for sentence in SENTENCE.finditer(text):
        said = sentence[0].rstrip()
        words = content_words(MARKER.sub(" ", said))
        if len(words) < LEAST_WORDS or any(True for _ in marked(said, len(passages))):
            continue
        counts = [len(words & each) for each in passages]
        most = max(counts)
        if most >= LEAST_SHARE * len(words):
            yield sentence.start() + len(said) - 1, counts.index(most)


def content_words(text: str) -> frozenset[str]:
    return frozenset(WORD.findall(text.casefold())) - STOP_WORDS
