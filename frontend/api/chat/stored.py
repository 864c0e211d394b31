"""Chat completions that are stored: from a reply to what is kept of it, and from there to the bodies that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from litestar import MediaType, Response

from frontend.api.chat import schema, stored_schema
from frontend.domain.conversations import Page, PageRequest
from frontend.domain.errors import InvalidRequest
from frontend.domain.storage import StoredCompletion
from frontend.services.stored_completions import StoredCompletionService

ROLES: Mapping[type, stored_schema.Role] = {
    schema.SystemMessage: "system",
    schema.DeveloperMessage: "developer",
    schema.UserMessage: "user",
    schema.AssistantMessage: "assistant",
    schema.ToolMessage: "tool",
}
_encode = msgspec.json.Encoder().encode
_messages = msgspec.json.Decoder(list[schema.InputMessage])


class Keep:
    """Keeps the completion of one request, when it is whole."""

    def __init__(self, completions: StoredCompletionService, tenant: str, data: schema.CreateChatCompletion) -> None:
        self._completions = completions
        self._tenant = tenant
        self._messages = data.messages
        self.metadata = data.metadata or {}

    async def __call__(self, completion: schema.ChatCompletion) -> None:
        """Raises Unavailable."""
        await self._completions.add(
            self._tenant,
            StoredCompletion(
                id=completion.id,
                model=completion.model,
                created_at=completion.created,
                metadata=self.metadata,
                body=_encode(completion),
                messages=_encode(self._messages),
            ),
        )


def body(completion: StoredCompletion) -> Response[bytes]:
    return Response(completion.body, media_type=MediaType.JSON)


def completions(page: Page[StoredCompletion]) -> stored_schema.ChatCompletionList:
    data = [msgspec.Raw(completion.body) for completion in page.data]
    first, last = ends([completion.id for completion in page.data])
    return stored_schema.ChatCompletionList(data=data, first_id=first, last_id=last, has_more=page.has_more)


def messages(completion: StoredCompletion, request: PageRequest) -> stored_schema.ChatCompletionMessageList:
    """Raises InvalidRequest for `request.after`."""
    sent = [message(each, f"{completion.id}-{i}") for i, each in enumerate(_messages.decode(completion.messages))]
    if request.order == "desc":
        sent.reverse()
    known = [each.id for each in sent]
    if request.after is not None and request.after not in known:
        raise InvalidRequest(f"There is nothing with id {request.after!r} in this list.", param="after")
    begin = 0 if request.after is None else known.index(request.after) + 1
    data = sent[begin : begin + request.limit]
    first, last = ends([each.id for each in data])
    return stored_schema.ChatCompletionMessageList(
        data=data, first_id=first, last_id=last, has_more=begin + len(data) < len(sent)
    )


def message(data: schema.InputMessage, message_id: str) -> stored_schema.StoredMessage:
    shown = stored_schema.StoredMessage(
        id=message_id,
        role=ROLES[type(data)],
        content=data.content if isinstance(data.content, str) else None,
        name=data.name,
    )
    if isinstance(data.content, list):
        words = "".join(part.text for part in data.content if isinstance(part, schema.TextPart))
        shown = msgspec.structs.replace(shown, content=words, content_parts=data.content)
    if isinstance(data, schema.AssistantMessage):
        return msgspec.structs.replace(shown, refusal=data.refusal, tool_calls=data.tool_calls or msgspec.UNSET)
    if isinstance(data, schema.ToolMessage):
        return msgspec.structs.replace(shown, tool_call_id=data.tool_call_id)
    return shown


def ends(ids: Sequence[str]) -> tuple[str, str]:
    return (ids[0], ids[-1]) if ids else ("", "")
