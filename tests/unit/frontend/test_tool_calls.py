"""frontend/domain/hermes/tool_calls.py: the same calls and the same content, however the text is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.domain.hermes.tool_calls import CLOSE, CLOSING, OPEN, ToolCallParser, opening

Read = tuple[str, list[tuple[str, str]]]


def read(pieces: Sequence[str]) -> Read:
    """Content and calls (name, arguments), put together as a client does."""
    parser = ToolCallParser()
    content = ""
    calls: list[tuple[str, str]] = []
    for event in events(parser, pieces):
        if isinstance(event, str):
            content += event
        elif event.name is not None:
            assert event.id is not None
            assert event.id.startswith("call_")
            assert event.index == len(calls)
            calls.append((event.name, event.arguments))
        else:
            assert event.id is None
            name, arguments = calls[event.index]
            calls[event.index] = (name, arguments + event.arguments)
    return content, calls


def events(parser: ToolCallParser, pieces: Sequence[str]) -> Iterator[Any]:
    for piece in pieces:
        yield from parser.feed(piece)
    yield from parser.finish()


def call(name: str, arguments: object) -> str:
    return opening(name) + json.dumps(arguments) + CLOSING


CASES: list[tuple[str, Read]] = [
    ("plain text, nothing else", ("plain text, nothing else", [])),
    ("almost a <tool_ tag", ("almost a <tool_ tag", [])),
    ("ends with <tool_call", ("ends with <tool_call", [])),
    (call("f", {"a": 1}), ("", [("f", '{"a": 1}')])),
    (
        f"Let me look.\n{call('f', {})}\n{call('g', {'b': [1, 2]})}\n",
        ("Let me look.", [("f", "{}"), ("g", '{"b": [1, 2]}')]),
    ),
    (call("f", {"html": "x </tool_call> <tool_call> y"}), ("", [("f", '{"html": "x </tool_call> <tool_call> y"}')])),
    (
        call("f", {"quote": 'say "}" \\ now', "n": {"m": []}}),
        ("", [("f", json.dumps({"quote": 'say "}" \\ now', "n": {"m": []}}))]),
    ),
    (f'{OPEN}{{"arguments": {{"q": 1}} , "name": "g"}}{CLOSE}', ("", [("g", '{"q": 1}')])),
    (
        f'{OPEN}{{"name": "f", "arguments": {{"name": "x", "arguments": {{}}}}}}{CLOSE}',
        ("", [("f", '{"name": "x", "arguments": {}}')]),
    ),
    (f'{OPEN}{{"name": "f"}}{CLOSE} Done.', (" Done.", [("f", "{}")])),
    (f'{OPEN}{{"name": "f", "arguments": null}}{CLOSE}', ("", [("f", "{}")])),
    (f'{OPEN}{{"name": "f", "arguments": "{{\\"a\\": 1}}"}}{CLOSE}', ("", [("f", '{"a": 1}')])),
    (
        f'{OPEN}{{"name": "f", "arguments": {{"a": 1}}{OPEN}{{"name": "g", "arguments": {{}}}}{CLOSE}',
        ("", [("f", '{"a": 1}'), ("g", "{}")]),
    ),
    ("Use the <tool_call> tag please", ("Use the <tool_call> tag please", [])),
    (f'{OPEN}{{"name": "f", "arguments": "hello"}}{CLOSE}', ("", [("f", '"hello"')])),
    (f"{OPEN}not json{CLOSE} tail", (f"{OPEN}not json{CLOSE} tail", [])),
    (f'{OPEN}{{"foo": 1}}{CLOSE}', (f'{OPEN}{{"foo": 1}}{CLOSE}', [])),
    (f'{OPEN}{{"name": 3, "arguments": {{}}}}{CLOSE}', (f'{OPEN}{{"name": 3, "arguments": {{}}}}{CLOSE}', [])),
    (f'{OPEN}{{"name": "f", "arguments": {{"a": 1}}\n{CLOSE}tail', ("tail", [("f", '{"a": 1}')])),
    (f'{OPEN}{{"name": "f", "arguments": {{"a": "cut of', ("", [("f", '{"a": "cut of')])),
    (f'{OPEN}{{"na', (f'{OPEN}{{"na', [])),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_every_cut_reads_the_same(text: str, expected: Read) -> None:
    """Whole, by the character, and by every size between: the same content and the same calls."""
    assert read([text]) == expected
    for size in range(1, len(text)):
        assert read([text[i : i + size] for i in range(0, len(text), size)]) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text() | st.sampled_from([OPEN, CLOSE, "name", "arguments"]), JSON, max_size=4)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)


@settings(max_examples=500, deadline=None)
@given(
    wanted=st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    ascii_only=st.booleans(),
)
def test_what_is_called_is_read(wanted: list[tuple[str, Any]], cuts: list[int], ascii_only: bool) -> None:
    """Any names and any JSON, in any cut: each call comes out with the text of its arguments, byte for byte."""
    written = [(name, json.dumps(arguments, ensure_ascii=ascii_only)) for name, arguments in wanted]
    text = "\n".join(opening(name) + arguments + CLOSING for name, arguments in written)
    pieces, position, turn = [], 0, 0
    while position < len(text):
        pieces.append(text[position : position + cuts[turn % len(cuts)]])
        position += len(pieces[-1])
        turn += 1
    assert read(pieces) == ("", written)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from([OPEN, CLOSE, "{", "}", '"', "\\", ":", '"name"', '"arguments"', '"f"', ",", " ", "x", "1"])
    )
)
def test_nothing_breaks_it(pieces: list[str]) -> None:
    """Any order of tags and JSON's characters is read to its end, in one piece as in many."""
    assert read(pieces) == read(["".join(pieces)])


def test_arguments_stream() -> None:
    """They are handed on as they come, not when the call is complete."""
    parser = ToolCallParser()
    list(parser.feed(opening("f")))
    (delta,) = parser.feed('{"text": "a long ')
    assert delta.arguments == '{"text": "a long'  # type: ignore[union-attr]  # the space may be the last
    (delta,) = parser.feed("story")
    assert delta.arguments == " story"  # type: ignore[union-attr]
