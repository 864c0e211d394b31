"""The events of a response on the wire: one frame of bytes each, its name in front as both specifications have it.

A response that was cancelled ends with `response.incomplete`, whose response says `cancelled`. There is no event of its
own for that: OpenAI's specification, its SDK's union and OpenResponses all lack `response.cancelled` (OpenAI has it as a
webhook only), and strict clients reject what they lack. `response.failed` would be wrong: clients raise its error, and
there is none. `response.completed` is the one event that the SDK's get_final_response() accepts, for truncated responses
too, and says that the answer is whole, which it is not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import assert_never

import msgspec

from frontend.api.items.mapping import citation, citations
from frontend.api.items.schema import FileCitationBody, ItemBody, OutputTextBody
from frontend.api.logprobs import TokenLogprob
from frontend.api.responses.mapping import Bodies
from frontend.api.responses.schema import ResponseBody
from frontend.domain import responses as domain
from frontend.http.replies import event as data_frame
from frontend.services.responses.task import Run


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    sequence_number: int


class StatusEvent(StreamEvent, frozen=True, kw_only=True):
    response: ResponseBody


class CreatedEvent(StatusEvent, frozen=True, kw_only=True, tag="response.created"):
    pass


class QueuedEvent(StatusEvent, frozen=True, kw_only=True, tag="response.queued"):
    pass


class InProgressEvent(StatusEvent, frozen=True, kw_only=True, tag="response.in_progress"):
    pass


class CompletedEvent(StatusEvent, frozen=True, kw_only=True, tag="response.completed"):
    pass


class IncompleteEvent(StatusEvent, frozen=True, kw_only=True, tag="response.incomplete"):
    pass


class FailedEvent(StatusEvent, frozen=True, kw_only=True, tag="response.failed"):
    pass


class ItemEvent(StreamEvent, frozen=True, kw_only=True):
    output_index: int
    item: ItemBody


class ItemAddedEvent(ItemEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    pass


class ItemDoneEvent(ItemEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    pass


class InItemEvent(StreamEvent, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class InPartEvent(InItemEvent, frozen=True, kw_only=True):
    content_index: int = 0
    """A message that is generated has one part."""


class PartAddedEvent(InPartEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    part: OutputTextBody = OutputTextBody("")


class PartDoneEvent(InPartEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    part: OutputTextBody


class TextDeltaEvent(InPartEvent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    delta: str
    logprobs: Sequence[TokenLogprob]


class AnnotationAddedEvent(InPartEvent, frozen=True, kw_only=True, tag="response.output_text.annotation.added"):
    annotation_index: int
    annotation: FileCitationBody


class TextDoneEvent(InPartEvent, frozen=True, kw_only=True, tag="response.output_text.done"):
    text: str
    logprobs: Sequence[TokenLogprob]


class SearchBegunEvent(InItemEvent, frozen=True, kw_only=True, tag="response.file_search_call.in_progress"):
    pass


class SearchingEvent(InItemEvent, frozen=True, kw_only=True, tag="response.file_search_call.searching"):
    pass


class SearchDoneEvent(InItemEvent, frozen=True, kw_only=True, tag="response.file_search_call.completed"):
    pass


class ArgumentsDeltaEvent(InItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDoneEvent(InItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


STATUS_EVENTS: Mapping[str, type[StatusEvent]] = {
    "created": CreatedEvent,
    "queued": QueuedEvent,
    "in_progress": InProgressEvent,
    "completed": CompletedEvent,
    "incomplete": IncompleteEvent,
    "failed": FailedEvent,
    "cancelled": IncompleteEvent,
}


SEARCH_EVENTS: Mapping[str, type[InItemEvent]] = {
    "in_progress": SearchBegunEvent,
    "searching": SearchingEvent,
    "completed": SearchDoneEvent,
}


async def frames(run: Run, bodies: Bodies) -> AsyncGenerator[bytes, None]:
    """Closing it closes the run."""
    async with aclosing(run.events) as events:
        async for event in events:
            yield frame(event, bodies)


def frame(event: domain.ResponseEvent, bodies: Bodies) -> bytes:
    body = event_body(event, bodies)
    return f"event: {body.__struct_config__.tag}\n".encode() + data_frame(body)


def event_body(event: domain.ResponseEvent, bodies: Bodies) -> StreamEvent:
    n = event.n
    match event:
        case domain.TextDelta():
            return TextDeltaEvent(
                sequence_number=n,
                item_id=event.item_id,
                output_index=event.output_index,
                delta=event.text,
                logprobs=bodies.logprobs(event.logprobs),
            )
        case domain.ArgumentsDelta():
            return ArgumentsDeltaEvent(
                sequence_number=n, item_id=event.item_id, output_index=event.output_index, delta=event.arguments
            )
        case domain.StatusChanged():
            return STATUS_EVENTS[event.name](sequence_number=n, response=bodies.response(event.response))
        case domain.ItemAdded():
            return ItemAddedEvent(sequence_number=n, output_index=event.output_index, item=bodies.item(event.item))
        case domain.ItemDone():
            return ItemDoneEvent(sequence_number=n, output_index=event.output_index, item=bodies.item(event.item))
        case domain.PartAdded():
            return PartAddedEvent(sequence_number=n, item_id=event.item_id, output_index=event.output_index)
        case domain.PartDone():
            return PartDoneEvent(
                sequence_number=n,
                item_id=event.item_id,
                output_index=event.output_index,
                part=OutputTextBody(event.text, bodies.logprobs(event.logprobs), citations(event.annotations)),
            )
        case domain.TextDone():
            return TextDoneEvent(
                sequence_number=n,
                item_id=event.item_id,
                output_index=event.output_index,
                text=event.text,
                logprobs=bodies.logprobs(event.logprobs),
            )
        case domain.AnnotationAdded():
            return AnnotationAddedEvent(
                sequence_number=n,
                item_id=event.item_id,
                output_index=event.output_index,
                annotation_index=event.annotation_index,
                annotation=citation(event.annotation),
            )
        case domain.SearchProgressed():
            return SEARCH_EVENTS[event.name](sequence_number=n, item_id=event.item_id, output_index=event.output_index)
        case domain.ArgumentsDone():
            return ArgumentsDoneEvent(
                sequence_number=n,
                item_id=event.item_id,
                output_index=event.output_index,
                name=event.name,
                arguments=event.arguments,
            )
        case _:
            assert_never(event)
