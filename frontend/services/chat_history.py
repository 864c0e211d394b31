"""What is new among the messages that a client sends to a conversation, which may hold some of them. Touches no database.

A client that knows what a conversation is sends what is new; one that does not sends everything, as with any chat. Both
are understood, and nothing is kept twice. Texts are the same up to the white space around them; calls by id, name and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from frontend.domain import ids
from frontend.domain.conversations import Window
from frontend.domain.errors import InvalidRequest
from frontend.domain.items import (
    CompactionItem,
    FileSearchCallItem,
    FunctionCallItem,
    FunctionOutputItem,
    InputText,
    Item,
    MessageItem,
    OutputText,
    StoredItem,
)
from frontend.domain.messages import Message, Role
from frontend.domain.tools import ToolCall

MOST_ASKED = 100
"""Questions in a row that could be asked again; each number of them is looked for."""
MOST_PLACES = 16
"""Where a comparison can stand at the same time: only answers that were cut, one right after the other, make several."""


class Comparison:
    """Finds where the messages of a client go on behind those that the conversation holds, which are read piece by piece.

    The conversation's messages must all be there, but for answers that were cut, of which a client may have seen all, a part
    or nothing, and for the system messages that it begins with: not every client knows of them.
    """

    def __init__(self, sent: Sequence[Message]) -> None:
        self._sent = sent
        self._places = {0}
        self._passed_over: set[int] = set()
        """Those of them where the last answer was cut, and was not found. If another one stands there, they differ."""
        self._group: list[StoredItem] = []
        """Items of one message, which may go on in the next piece."""
        self._skips = sent[0].role != "system"
        """Still among the leading system messages, and they were not sent."""

    def read(self, stored: Iterable[StoredItem]) -> None:
        """The next items. Raises InvalidRequest at the first difference."""
        for each in stored:
            if isinstance(
                each.item, CompactionItem | FileSearchCallItem
            ):  # no message, and no client of chats knows of it
                continue
            if self._group and not belong_together(self._group[-1].item, each.item):
                self._compare()
            self._group.append(each)

    def rest(self) -> Sequence[Message]:
        """What is new, after all that was read. Raises InvalidRequest."""
        if self._group:
            self._compare()
        another = {place for place in self._passed_over if self._role(place) == "assistant"}
        if another >= self._places:
            raise mismatch(self._sent, max(self._places))
        return self._sent[max(self._places - another) :]

    def _compare(self) -> None:
        group, self._group = self._group, []
        kept = joined([message_of(each.item) for each in group])
        self._skips = self._skips and kept.role == "system"
        if self._skips:
            return
        if is_cut(group[-1].item):
            heard = {p + 1 for p in self._places if self._role(p) and resembles(kept, self._sent[p])}
            self._passed_over = self._places - heard
            ends = self._places | heard
        else:
            self._passed_over = set()
            ends = {end for place in self._places for end in self._ends(kept, len(group), place)}
        if not ends:
            raise mismatch(self._sent, max(self._places))
        self._places = set(sorted(ends)[-MOST_PLACES:])

    def _role(self, place: int) -> Role | None:
        return self._sent[place].role if place < len(self._sent) else None

    def _ends(self, kept: Message, num_items: int, place: int) -> Iterator[int]:
        """Where `kept` can end if it begins at `place`."""
        num_calls = 0
        for count in range(1, num_items + 1):  # it may have been sent as several, with an item each
            several = self._sent[place : place + count]
            if len(several) < count or several[-1].role != kept.role:
                return
            num_calls += len(several[-1].tool_calls)
            if num_calls == len(kept.tool_calls) and same(kept, joined(several)):
                yield place + count


def is_resent(sent: Sequence[Message]) -> bool:
    """Whether these are a history; otherwise they are what the client says next."""
    return any(message.role == "assistant" for message in sent)


def behind_question(sent: Sequence[Message], window: Window) -> Sequence[Message]:
    """What is new where no history is sent: everything but the system messages that the conversation begins with, and
    questions at its end that nobody waited to see answered. Raises InvalidRequest for other system messages."""
    fresh = sent
    if window.pinned and sent[0].role == "system":
        for i, stored in enumerate(window.pinned):
            if i == len(sent) or not same(message_of(stored.item), sent[i]):
                raise mismatch(sent, i)
        fresh = sent[len(window.pinned) :]
    asked = questions(window.history)
    for count in range(min(len(asked), len(fresh)), 0, -1):
        if all(map(same, asked[-count:], fresh)):
            return fresh[count:]
    return fresh


def asked_again(sent: Sequence[Message], window: Window) -> Sequence[StoredItem]:
    """The conversation's last question, which got no answer or a cut one, where a client sends nothing else.

    Raises InvalidRequest if there is none: then there is nothing to answer.
    """
    question = unanswered(window.history)
    if question and same(message_of(question[-1].item), sent[-1]):
        return question
    raise InvalidRequest("The conversation holds all of these messages: there is nothing to answer.", param="messages")


def questions(history: Sequence[StoredItem]) -> list[Message]:
    """What was said since the last answer that somebody has waited for."""
    result: list[Message] = []
    behind: Item | None = None
    """The item behind in the same cut answer."""
    for stored in reversed(history):
        item = stored.item
        if len(result) == MOST_ASKED:
            break
        if not is_assistants(item):
            result.append(message_of(item))
            behind = None
        # A response that was cut has its reasons told: its client has seen the end of it.
        elif (is_cut(item) and stored.response_id is None) or (behind is not None and belong_together(item, behind)):
            behind = item
        else:
            break
    return result[::-1]


def unanswered(history: Sequence[StoredItem]) -> Sequence[StoredItem]:
    """The last of what was not said by the assistant, without the answer to it."""
    end = len(history)
    while end and is_assistants(history[end - 1].item):
        end -= 1
    first = end
    while first and not is_assistants(history[first - 1].item):
        first -= 1
    return history[first:end]


def belong_together(before: Item, item: Item) -> bool:
    """An assistant's text and calls are one message; two texts in a row are two, and what was cut ends its message."""
    texts = isinstance(before, MessageItem) and isinstance(item, MessageItem)
    return is_assistants(before) and is_assistants(item) and not texts and not is_cut(before)


def is_assistants(item: Item) -> bool:
    return isinstance(item, FunctionCallItem | FileSearchCallItem) or (
        isinstance(item, MessageItem) and item.role == "assistant"
    )


def is_cut(item: Item) -> bool:
    """Whether it is what there is of an answer that did not come to its end."""
    return isinstance(item, MessageItem | FunctionCallItem) and is_assistants(item) and item.status == "incomplete"


def message_of(item: Item) -> Message:
    match item:
        case MessageItem():
            return Message("system" if item.role == "developer" else item.role, item.text)
        case FunctionCallItem():
            return Message("assistant", "", [ToolCall(item.call_id, item.name, item.arguments)])
        case FunctionOutputItem():
            return Message("tool", item.text, tool_call_id=item.call_id)
        case CompactionItem():
            return Message("system", item.summary)
        case FileSearchCallItem():
            return Message("assistant", "")


def items_of(messages: Sequence[Message]) -> list[Item]:
    """With new ids."""
    return [item for message in messages for item in items_of_one(message)]


def items_of_one(message: Message) -> Iterator[Item]:
    if message.role == "tool":
        assert message.tool_call_id is not None
        yield FunctionOutputItem(id=ids.new("fco_"), call_id=message.tool_call_id, output=message.text)
        return
    if message.text or not message.tool_calls:
        part = OutputText(message.text) if message.role == "assistant" else InputText(message.text)
        yield MessageItem(id=ids.new("msg_"), role=message.role, content=[part])
    for call in message.tool_calls:
        yield FunctionCallItem(id=ids.new("fc_"), call_id=call.id, name=call.name, arguments=call.arguments)


def joined(messages: Sequence[Message]) -> Message:
    """Messages of one role as one."""
    if len(messages) == 1:
        return messages[0]
    calls = [call for message in messages for call in message.tool_calls]
    return Message(messages[0].role, "".join(message.text for message in messages), calls)


def same(a: Message, b: Message) -> bool:
    return (
        (a.role, a.tool_call_id, len(a.tool_calls)) == (b.role, b.tool_call_id, len(b.tool_calls))
        and a.text.strip() == b.text.strip()
        and all(map(same_call, a.tool_calls, b.tool_calls))
    )


def resembles(a: Message, b: Message) -> bool:
    """One is the beginning of the other."""
    one, other = a.text.strip(), b.text.strip()
    calls = zip(a.tool_calls, b.tool_calls, strict=False)
    return (
        a.role == b.role
        and (one.startswith(other) or other.startswith(one))
        and all((x.id, x.name) == (y.id, y.name) for x, y in calls)
    )


def same_call(a: ToolCall, b: ToolCall) -> bool:
    if (a.id, a.name) != (b.id, b.name):
        return False
    return a.arguments == b.arguments or canonical(a.arguments) == canonical(b.arguments)


def canonical(arguments: str) -> str:
    """JSON in one spelling; what is none, as it is. 1 and 1.0 are the same, as they are in JavaScript; 1 and true are not."""
    try:
        return json.dumps(json.loads(arguments.strip() or "{}", parse_int=float), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def mismatch(sent: Sequence[Message], place: int) -> InvalidRequest:
    """Names the first difference, and never a text."""
    there = place < len(sent)
    return InvalidRequest(
        "The messages are not those that the conversation holds: "
        + ("the first that differs is named in 'param'." if there else "it goes on where they end.")
        + " Send what is new and nothing else, or all messages as they were.",
        param=f"messages[{place}]" if there else "messages",
        code="conversation_mismatch",
    )
