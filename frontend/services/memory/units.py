"""From the items of a conversation to the units of its memory: what is found, and shown again, as one.

A unit is a turn, which is a user's message with the answer and the calls and results between them; a long turn is several
units. It names the day and who spoke. What it is found by is the unit with its neighbours: "And in winter?" says nothing alone.

    26 November 2026
    User: How cold does it get here?
    Assistant: Down to -5 degrees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

from frontend.domain.items import (
    CompactionItem,
    FileSearchCallItem,
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    MessageItem,
    StoredItem,
)
from frontend.services.context.transcript import is_system
from retrieval.chunking import Tokens, narrowed

MOST_ITEMS = 16
"""Of a turn: an agent that calls functions for an hour has several."""
UNIT_TOKENS = 100
"""Of a unit, at most. One sentence that answers, in a unit of other matters, has a median cosine with its question of .24 if
the unit has 200 tokens, .37 if it has 100, .49 if it has 60 (XQuAD, all-MiniLM-L6-v2): the model was trained on 128."""
LEAST_TOKENS = 16
"""Of a line, whatever stands before it."""
NOTHING = "(nothing)"
SENTENCE_ENDS = ".!?\"'"
SPEAKERS = {"user": "User", "assistant": "Assistant", "system": "System", "developer": "System"}
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
Read = Callable[[str], Tokens]
"""A text as the embedding model reads it. Blocks."""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    start: int
    """The sequence number of its turn's first item."""
    end: int
    """That of its turn's last one."""
    text: str
    """A day, and the lines below it. Each line names its speaker and no other line begins like that: a message of several
    lines is indented."""
    windows: Sequence[Sequence[int]]
    """What the embedding model reads of it: the unit alone, and with its neighbours."""


class Line(msgspec.Struct, frozen=True):
    text: str
    ids: Sequence[int]


class Draft(msgspec.Struct, frozen=True):
    """A unit without its neighbours."""

    turn: Sequence[StoredItem]
    day: Line
    lines: Sequence[Line]

    @property
    def said(self) -> list[int]:
        return [token for line in self.lines for token in line.ids]


def turns(items: Sequence[StoredItem]) -> list[Sequence[StoredItem]]:
    """Those of `items`, which begin with the beginning of one. A user's message begins the next, or the system messages
    right before it do."""
    starts = [0] if items else []
    for place, stored in enumerate(items):
        first = place
        while first > starts[-1] and is_system(items[first - 1].item):
            first -= 1
        begins = isinstance(stored.item, MessageItem) and stored.item.role == "user"
        if begins and first > starts[-1]:
            starts.append(first)
        elif place - starts[-1] >= MOST_ITEMS:
            starts.append(place)
    return [items[start:end] for start, end in pairwise([*starts, len(items)])]


def units(
    whole: Sequence[Sequence[StoredItem]], read: Read, window_tokens: int, *, skipped: int, made: int
) -> list[Unit]:
    """Of `made` turns behind the first `skipped`; those around them are neighbours alone. Blocks."""
    last = skipped + made
    drafts = [
        (skipped <= number < last, draft)
        for number, turn in enumerate(whole[: last + 1])
        if number >= skipped - 1
        for draft in drafted(turn, read, min(UNIT_TOKENS, window_tokens))
    ]
    around = [None, *(draft for _, draft in drafts), None]
    return [
        finished(draft, around[place], around[place + 2], window_tokens)
        for place, (wanted, draft) in enumerate(drafts)
        if wanted
    ]


def finished(draft: Draft, before: Draft | None, after: Draft | None, window_tokens: int) -> Unit:
    alone = [*draft.day.ids, *draft.said]
    room = window_tokens - len(alone)
    left = before.said if before else []
    right = after.said if after else []
    share = room // 2
    take_left = min(len(left), max(share, room - len(right)))
    take_right = min(len(right), room - take_left)
    windows = [alone]
    if take_left + take_right >= LEAST_TOKENS:
        windows.append([*draft.day.ids, *left[len(left) - take_left :], *draft.said, *right[:take_right]])
    return Unit(
        start=draft.turn[0].seq,
        end=draft.turn[-1].seq,
        text="\n".join([draft.day.text, *(line.text for line in draft.lines)]),
        windows=windows,
    )


def drafted(turn: Sequence[StoredItem], read: Read, most_tokens: int) -> Iterator[Draft]:
    """As few as can be, of `most_tokens` each."""
    name = day(turn[0].created_at)
    head = Line(name, read(name).ids)
    room = most_tokens - len(head.ids)
    lines: list[Line] = []
    size = 0
    for line in (line for stored in turn for line in lines_of(stored.item, read, room)):
        if lines and size + len(line.ids) > room:
            yield Draft(turn, head, lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line.ids)
    yield Draft(turn, head, lines)


def lines_of(item: Item, read: Read, most_tokens: int) -> Iterator[Line]:
    """Several of nearly the same length, if one would have over `most_tokens`."""
    speaker, said = spoken(item)
    label = f"{speaker}: "
    label_ids = read(label).ids[: most_tokens - LEAST_TOKENS]
    room = most_tokens - len(label_ids)
    for piece, ids in list(pieces(said, read, room)) or pieces(NOTHING, read, room):
        yield Line(label + "\n ".join(piece.splitlines()), [*label_ids, *ids])


def pieces(text: str, read: Read, most_tokens: int) -> Iterator[tuple[str, Sequence[int]]]:
    """Of nearly the same length, cut between sentences where that is near, or else between words."""
    tokens = narrowed(read(text))
    first, total = 0, len(tokens.ids)
    while first < total:
        left = total - first
        last = first + -(-left // -(-left // most_tokens))
        if last < total:
            last = good_end(text, tokens.offsets, first, last)
        yield text[tokens.offsets[first][0] : tokens.offsets[last - 1][1]], tokens.ids[first:last]
        first = last


def good_end(text: str, offsets: Sequence[tuple[int, int]], first: int, last: int) -> int:
    """`last`, or a third less: tokens from `first` up to it."""
    between_words = last
    for end in range(last, last - (last - first) // 3, -1):
        before, behind = offsets[end - 1][1], offsets[end][0]
        if not text[before:behind].isspace():
            continue
        if text[before - 1] in SENTENCE_ENDS or "\n" in text[before:behind]:
            return end
        if between_words == last:
            between_words = end
    return between_words


def spoken(item: Item) -> tuple[str, str]:
    """Who, and what."""
    match item:
        case MessageItem():
            return SPEAKERS[item.role], item.text
        case FunctionCallItem():
            return f"Assistant called {item.name}", item.arguments
        case FunctionOutputItem():
            return "Result", item.text
        case CompactionItem():
            return "Summary of what came before", item.summary
        case FileSearchCallItem():
            return "Assistant searched documents for", "; ".join(item.queries)


def day(unix_s: int) -> str:
    """UTC: "26 November 2026"."""
    date = time.gmtime(unix_s)
    return f"{date.tm_mday} {MONTHS[date.tm_mon - 1]} {date.tm_year}"


def day_and_lines(text: str) -> tuple[str, str]:
    """Of a unit's text."""
    name, _, lines = text.partition("\n")
    return name, lines


def joined(texts: Iterable[tuple[int, str]]) -> str:
    """Texts of units, numbered as their log numbers them, in its order: no day is told twice, and a gap shows."""
    told: list[str] = []
    last_day, last_number = "", None
    for number, text in texts:
        name, lines = day_and_lines(text)
        if last_number is not None and number != last_number + 1:
            told.append("...")
        if name != last_day:
            told.append(name)
        told.append(lines)
        last_day, last_number = name, number
    return "\n".join(told)
