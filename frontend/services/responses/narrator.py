"""From what a model generates to the events of a response: one place for the order of them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from frontend.domain import ids
from frontend.domain.citations import FileCitation
from frontend.domain.generation import ChoiceDelta, TokenLogprobs
from frontend.domain.items import FileSearchCallItem, FunctionCallItem, Item, ItemStatus, MessageItem, OutputText
from frontend.domain.responses import (
    AnnotationAdded,
    ArgumentsDelta,
    ArgumentsDone,
    ItemAdded,
    ItemDone,
    PartAdded,
    PartDone,
    Response,
    ResponseEvent,
    SearchProgressed,
    StatusChanged,
    TextDelta,
    TextDone,
)
from frontend.domain.tools import ToolCallDelta
from frontend.services.citations import cite
from frontend.services.file_search import Found


class OpenMessage:
    """A message that grows."""

    def __init__(self) -> None:
        self.id = ids.new("msg_")
        self._text: list[str] = []
        self._logprobs: list[TokenLogprobs] = []
        self.annotations: list[FileCitation] = []
        """Known when it is whole."""

    def add(self, text: str, logprobs: list[TokenLogprobs]) -> None:
        self._text.append(text)
        self._logprobs += logprobs

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def part(self) -> OutputText:
        return OutputText(self.text, self._logprobs, self.annotations)

    def item(self, status: ItemStatus) -> MessageItem:
        content = [] if status == "in_progress" else [self.part]
        return MessageItem(id=self.id, role="assistant", content=content, status=status)


class OpenCall:
    """A call whose arguments grow."""

    def __init__(self, begun: ToolCallDelta) -> None:
        assert begun.id is not None
        assert begun.name is not None
        self.id = ids.new("fc_")
        self.call_id, self.name = begun.id, begun.name
        self._arguments: list[str] = []

    def add(self, arguments: str) -> None:
        self._arguments.append(arguments)

    @property
    def arguments(self) -> str:
        return "".join(self._arguments)

    def item(self, status: ItemStatus) -> FunctionCallItem:
        return FunctionCallItem(
            id=self.id, call_id=self.call_id, name=self.name, arguments=self.arguments, status=status
        )


class Narrator:
    """The events of one response, numbered from 0 on. Its output grows as they are told."""

    def __init__(self, found: Found | None = None, *, cites: bool = True) -> None:
        """`found`: what was searched for it; `cites`: its texts are prose, in which passages can be cited."""
        self._n = 0
        self._found = found
        self._cited = found.passages if found is not None and cites else ()
        self._open: OpenMessage | OpenCall | None = None
        self.output: list[Item] = []

    def begin(self, response: Response) -> Iterator[ResponseEvent]:
        yield self._status("created", response)
        if response.status == "queued":
            yield self._status("queued", response)
        yield self._status("in_progress", msgspec.structs.replace(response, status="in_progress"))

    def search(self) -> Iterator[ResponseEvent]:
        """Tells of the search, if there was one; it is over by now."""
        if self._found is None:
            return
        call = FileSearchCallItem(
            id=ids.new("fs_"), queries=self._found.queries, results=self._found.passages, status="completed"
        )
        index = len(self.output)
        begun = msgspec.structs.replace(call, results=(), status="in_progress")
        yield ItemAdded(n=self._next(), output_index=index, item=begun)
        steps: Sequence[Literal["in_progress", "searching", "completed"]] = ("in_progress", "searching", "completed")
        for name in steps:
            yield SearchProgressed(n=self._next(), name=name, item_id=call.id, output_index=index)
        self.output.append(call)
        yield ItemDone(n=self._next(), output_index=index, item=call)

    def feed(self, choice: ChoiceDelta) -> Iterator[ResponseEvent]:
        if choice.text or choice.logprobs:
            yield from self._say(choice.text, list(choice.logprobs or ()))
        for call in choice.calls:
            yield from self._call(call)

    def close(self, status: Literal["completed", "incomplete"]) -> Iterator[ResponseEvent]:
        """The model has ended, or was cut: what is open is closed. A reply without a word is an empty message."""
        if self._open is None and all(isinstance(item, FileSearchCallItem) for item in self.output):
            yield from self._open_message()
        yield from self._close(status)

    def end(self, response: Response) -> ResponseEvent:
        """The last event."""
        assert not response.running
        return self._status(response.status, response)

    def _say(self, text: str, logprobs: list[TokenLogprobs]) -> Iterator[ResponseEvent]:
        if not isinstance(self._open, OpenMessage):
            yield from self._open_message()
        assert isinstance(self._open, OpenMessage)
        self._open.add(text, logprobs)
        yield TextDelta(
            n=self._next(), item_id=self._open.id, output_index=len(self.output), text=text, logprobs=logprobs
        )

    def _open_message(self) -> Iterator[ResponseEvent]:
        yield from self._close("completed")
        self._open = OpenMessage()
        index = len(self.output)
        yield ItemAdded(n=self._next(), output_index=index, item=self._open.item("in_progress"))
        yield PartAdded(n=self._next(), item_id=self._open.id, output_index=index)

    def _call(self, call: ToolCallDelta) -> Iterator[ResponseEvent]:
        if call.id is not None:
            yield from self._close("completed")
            self._open = OpenCall(call)
            yield ItemAdded(n=self._next(), output_index=len(self.output), item=self._open.item("in_progress"))
        assert isinstance(self._open, OpenCall)
        if call.arguments:
            self._open.add(call.arguments)
            yield ArgumentsDelta(
                n=self._next(), item_id=self._open.id, output_index=len(self.output), arguments=call.arguments
            )

    def _close(self, status: Literal["completed", "incomplete"]) -> Iterator[ResponseEvent]:
        done, self._open = self._open, None
        if done is None:
            return
        index = len(self.output)
        if isinstance(done, OpenMessage):
            done.annotations = cite(done.text, self._cited)
            for i, each in enumerate(done.annotations):
                yield AnnotationAdded(
                    n=self._next(), item_id=done.id, output_index=index, annotation_index=i, annotation=each
                )
            text, logprobs = done.text, done.part.logprobs
            yield TextDone(n=self._next(), item_id=done.id, output_index=index, text=text, logprobs=logprobs)
            yield PartDone(
                n=self._next(),
                item_id=done.id,
                output_index=index,
                text=text,
                logprobs=logprobs,
                annotations=done.annotations,
            )
        else:
            yield ArgumentsDone(
                n=self._next(), item_id=done.id, output_index=index, name=done.name, arguments=done.arguments
            )
        item = done.item(status)
        self.output.append(item)
        yield ItemDone(n=self._next(), output_index=index, item=item)

    def _status(
        self,
        name: Literal["queued", "created", "in_progress", "completed", "incomplete", "failed", "cancelled"],
        response: Response,
    ) -> StatusChanged:
        return StatusChanged(n=self._next(), name=name, response=response)

    def _next(self) -> int:
        self._n += 1
        return self._n - 1
