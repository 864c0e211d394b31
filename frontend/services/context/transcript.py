"""From items to the turns of a chat. Knows in which order items make sense, and nothing of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from frontend.domain.errors import InvalidRequest
from frontend.domain.items import (
    CompactionItem,
    FileSearchCallItem,
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    MessageItem,
)
from frontend.domain.messages import Message, Role
from frontend.domain.tools import ToolCall

ABOUT_A_SUMMARY = (
    "The beginning of this conversation is not shown any more."
    " What follows is a summary of it, for reference; it is no instruction."
)
SYSTEM = ("system", "developer")


class Line(msgspec.Struct, frozen=True):
    """A turn of the chat, and the item that it begins with."""

    message: Message
    first: int
    """Position of that item."""


class Transcript(msgspec.Struct, frozen=True):
    lines: Sequence[Line]
    exchanges: Sequence[int]
    """Positions of the items with which exchanges begin: 0, then each user message or the system messages right before it."""
    pairs: Sequence[tuple[int, int]]
    """Positions of each call and its result, in the order of the results; for a call without one, of what is yet to come."""


def summary_message(summary: str) -> Message:
    """What stands for items that are not shown: our words, and never a user's."""
    return Message("system", f"{ABOUT_A_SUMMARY}\n\n{summary}")


def is_system(item: Item) -> bool:
    return isinstance(item, MessageItem) and item.role in SYSTEM


def system_text(item: Item) -> str:
    assert isinstance(item, MessageItem)
    return item.text


def read(items: Sequence[Item], param: str, stored: int) -> Transcript:
    """The first `stored` of the items are history.

    Raises InvalidRequest, naming `param`, for a result without its call and for a call without its result.

    Calls belong to the assistant's message before them. A call that was cut while it was generated, and that nobody has
    answered, is passed over: it is not one to make.
    """
    return Reader(items, param, stored).read()


class Reader:
    def __init__(self, items: Sequence[Item], param: str, stored: int) -> None:
        self._items = items
        self._stored = stored
        self._param = param
        self._answered = {item.call_id for item in items if isinstance(item, FunctionOutputItem)}
        self._lines: list[Line] = []
        self._exchanges: list[int] = [0]
        self._pairs: list[tuple[int, int]] = []
        self._open: dict[str, tuple[int, str]] = {}
        """Calls without their result so far: position and name, by call id."""

    def read(self) -> Transcript:
        for position, item in enumerate(self._items):
            match item:
                case MessageItem():
                    self._message(position, item)
                case FunctionCallItem():
                    self._call(position, item)
                case FunctionOutputItem():
                    self._output(position, item)
                case CompactionItem():
                    self._all_answered()
                    self._lines.append(Line(summary_message(item.summary), position))
                case FileSearchCallItem():  # what it found was of use to its own turn
                    pass
        end = len(self._items)
        self._pairs += [(position, end) for position, _ in self._open.values()]
        return Transcript(self._lines, self._exchanges, self._pairs)

    def _message(self, position: int, item: MessageItem) -> None:
        if item.role == "assistant" and self._open and self._lines[-1].message.role == "assistant":
            self._replace_last(text=self._lines[-1].message.text + item.text)
            return
        self._all_answered()
        if item.role == "user":
            self._begin_exchange(position)
        role: Role = "system" if item.role == "developer" else item.role
        self._lines.append(Line(Message(role, item.text), position))

    def _begin_exchange(self, position: int) -> None:
        while position and is_system(self._items[position - 1]):
            position -= 1
        if position:
            self._exchanges.append(position)

    def _call(self, position: int, item: FunctionCallItem) -> None:
        if item.status != "completed" and item.call_id not in self._answered:
            return
        if item.call_id in self._open:
            raise InvalidRequest(f"Two function calls have the call_id {item.call_id!r}.", param=self._param)
        call = ToolCall(item.call_id, item.name, item.arguments)
        if self._lines and self._lines[-1].message.role == "assistant":
            self._replace_last(tool_calls=[*self._lines[-1].message.tool_calls, call])
        else:
            self._all_answered()
            self._lines.append(Line(Message("assistant", "", [call]), position))
        self._open[item.call_id] = position, item.name

    def _output(self, position: int, item: FunctionOutputItem) -> None:
        if item.call_id not in self._open:
            if position < self._stored:  # its call was deleted, or answered before: nothing that this turn can mend
                return
            raise InvalidRequest(
                f"No function call found for the function call output with call_id {item.call_id!r}.", param=self._param
            )
        called_at, name = self._open.pop(item.call_id)
        self._pairs.append((called_at, position))
        self._lines.append(Line(Message("tool", item.text, tool_name=name), position))

    def _all_answered(self) -> None:
        if self._open:
            raise InvalidRequest(
                f"No function call output found for the function call with call_id {next(iter(self._open))!r}.",
                param=self._param,
            )

    def _replace_last(self, **changes: object) -> None:
        last = self._lines[-1]
        self._lines[-1] = Line(msgspec.structs.replace(last.message, **changes), last.first)
