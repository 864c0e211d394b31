"""Hermes-2's tool calls in generated text: `<tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>`, read as it comes.

One parser serves streams and whole replies. It looks at each character once and trusts the JSON, not the tags: a
`</tool_call>` inside a JSON string is data. What began like a call and is none stays text, so nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from frontend.domain import ids
from frontend.domain.tools import ToolCallDelta

OPEN, CLOSE = "<tool_call>", "</tool_call>"
SPACE = " \t\r\n"
JSON_OUTSIDE_STRINGS = frozenset(SPACE + ",:0123456789+-.eEtrufalsn")


def opening(name: str) -> str:
    """What stands before the arguments of a call of `name`, when the model writes it as it was taught."""
    return f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": '


CLOSING = "}\n" + CLOSE
"""What stands behind the arguments."""


class ToolCallParser:
    """The text of one choice goes in, its content and its calls come out."""

    def __init__(self) -> None:
        self._held = ""
        self._call: CallReader | None = None
        self._space = ""
        """White space before the tag that began the call: part of the content, if it is none."""
        self._calls = 0
        self._closing = False
        """A call's object is complete, its closing tag is not."""

    @property
    def called(self) -> bool:
        """Whether a call has begun."""
        return self._calls > 0

    @property
    def cut(self) -> bool:
        """Whether the text ended inside a call."""
        return self._call is not None

    def feed(self, text: str) -> Iterator[str | ToolCallDelta]:
        """Pieces of content, and of calls, in the order in which they were generated."""
        self._held += text
        while True:
            if self._closing:
                if not self._skip_closing_tag():
                    return
            elif self._call is None:
                content, begun = self._take_content()
                if content:
                    yield content
                if not begun:
                    return
                self._call = CallReader(self._calls)
            else:
                self._held = self._held[self._call.feed(self._held) :]
                yield from self._call.take()
                self._calls = self._call.index + self._call.started
                if self._call.broken:
                    if content := self._break_off():
                        yield content
                elif self._call.complete:
                    self._call, self._closing = None, True
                else:
                    return

    def finish(self) -> Iterator[str | ToolCallDelta]:
        """What was held back when the text ended."""
        if self._call is not None:
            if self._call.started:
                return
            self._held = self._break_off() + self._held
        rest = "" if self._closing else self._held
        self._held = ""
        if rest and not (self.called and not rest.strip()):
            yield rest

    def _take_content(self) -> tuple[str, bool]:
        """Content that can be no part of a tag, and whether a call begins behind it. White space around calls goes."""
        at = self._held.find(OPEN)
        if at >= 0:
            content = self._held[:at].rstrip(SPACE)
            self._space, self._held = self._held[len(content) : at], self._held[at + len(OPEN) :]
        else:
            keep = len(self._held) - beginning_of(OPEN, self._held)
            keep = len(self._held[:keep].rstrip(SPACE))
            content, self._held = self._held[:keep], self._held[keep:]
        return content.lstrip(SPACE) if self.called and not content.strip(SPACE) else content, at >= 0

    def _skip_closing_tag(self) -> bool:
        """Whatever stands between a call's object and its closing tag means nothing."""
        close, reopen = self._held.find(CLOSE), self._held.find(OPEN)
        if close >= 0 and not 0 <= reopen < close:
            self._held = self._held[close + len(CLOSE) :]
        elif reopen >= 0:  # the model forgot to close the call
            self._held = self._held[reopen:]
        else:
            return False
        self._closing = False
        return True

    def _break_off(self) -> str:
        """The text of a call that is none, as content; of one that has begun, nothing: it stays as far as it came."""
        assert self._call is not None
        text = "" if self._call.started else self._space + OPEN + self._call.raw
        self._closing = self._call.started
        self._call = None
        return text


class CallReader:
    """Reads one JSON object with the members `name` and `arguments`, in any order, as its characters arrive."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.raw = ""
        self.started = False
        """The call has been announced."""
        self.complete = False
        self.broken = False
        """This is no call, or the rest of it is not JSON."""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._expecting_key = True
        self._key: str | None = None
        self._member_at = 0
        """Where the key or the value begins that is being read."""
        self._name: str | None = None
        self._arguments_at: int | None = None
        self._arguments_end: int | None = None
        self._sent_to = 0

    def feed(self, text: str) -> int:
        """Returns how many characters belong to the object."""
        base = len(self.raw)
        self.raw += text
        for position in range(base, len(self.raw)):
            self._step(self.raw[position], position)
            if self.complete:
                self.raw = self.raw[: position + 1]
                break
            if self.broken:
                self.raw = self.raw[:position]
                break
        return len(self.raw) - base

    def take(self) -> Iterator[ToolCallDelta]:
        """What has become known since the last time."""
        if self._name is None:
            return
        arguments = self._take_arguments()
        if not self.started:
            self.started = True
            yield ToolCallDelta(self.index, arguments, ids.new("call_"), self._name)
        elif arguments:
            yield ToolCallDelta(self.index, arguments)

    def _take_arguments(self) -> str:
        """An object is handed on as it grows; anything else once it is whole, as the object that it stands for."""
        if self._arguments_at is None:
            return "{}" if self.complete and not self.started else ""
        value = self.raw[self._arguments_at : self._arguments_end]
        if value.lstrip(SPACE).startswith("{"):
            begin = max(self._sent_to, self._arguments_at + len(value) - len(value.lstrip(SPACE)))
            self._sent_to = self._arguments_at + len(value.rstrip(SPACE))
            return self.raw[begin : self._sent_to]
        if self._arguments_end is None or self._sent_to:
            return ""
        self._sent_to = self._arguments_end
        return "{}" if value.strip(SPACE) == "null" else object_in_string(value) or value.strip(SPACE)

    def _step(self, char: str, position: int) -> None:
        if self._in_string:
            self._step_in_string(char, position)
        elif self._depth == 0:
            if char == "{":
                self._depth = 1
            else:
                self.broken = char not in SPACE
        elif char == '"':
            self._in_string = True
            if self._depth == 1 and self._expecting_key:
                self._member_at = position
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            if self._depth == 0:
                self._end_member(position)
                self.complete = not self.broken
        elif self._depth == 1 and char == ":" and self._expecting_key:
            self._begin_value(position + 1)
        elif self._depth == 1 and char == ",":
            self._end_member(position)
        else:
            self.broken = char not in JSON_OUTSIDE_STRINGS

    def _step_in_string(self, char: str, position: int) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            if self._depth == 1 and self._expecting_key:
                self._key = read_string(self.raw[self._member_at : position + 1])

    def _begin_value(self, position: int) -> None:
        self._expecting_key, self._member_at = False, position
        if self._key == "arguments" and self._arguments_at is None:
            self._arguments_at = position

    def _end_member(self, position: int) -> None:
        if self._key == "name" and self._name is None:
            self._name = read_string(self.raw[self._member_at : position])
        elif self._key == "arguments" and self._arguments_end is None:
            self._arguments_end = position
        self._expecting_key, self._key = True, None
        if self.raw[position] in "}]":
            self.broken = self._name is None


def read_string(raw: str) -> str | None:
    """The value of a JSON string, or None for anything else."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def object_in_string(raw: str) -> str | None:
    """The text of a JSON object that a model wrote as a JSON string."""
    text = read_string(raw)
    try:
        return text if text is not None and isinstance(json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None


def beginning_of(tag: str, text: str) -> int:
    """How many characters at the end of `text` could be the beginning of `tag`."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)
