"""The bodies of stored chat completions, as OpenAI specifies them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from frontend.api.chat.schema import ChatCompletion, FunctionCall, RefusalPart, TextPart
from frontend.api.parameters import Metadata
from frontend.http.openapi import REFERENCE

Role = Literal["system", "developer", "user", "assistant", "tool"]
KeptCompletion = Annotated[
    msgspec.Raw, Meta(extra_json_schema={"$ref": REFERENCE.format(name=ChatCompletion.__name__)})
]
"""A ChatCompletion, as it was kept: nothing looks into it."""


class UpdateChatCompletion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metadata: Metadata | None
    """In the place of what there was."""


class ChatCompletionList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[KeptCompletion]
    first_id: str
    """Of an empty list: an empty text, as OpenAI's types want a string."""
    last_id: str
    has_more: bool


class ChatCompletionDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the request.

    OpenAI's specification gives each of them the role `assistant`, and its own example has a user's; the example is right.
    """

    id: str
    role: Role
    content: str | None
    name: str | None
    refusal: str | None = None
    content_parts: list[TextPart | RefusalPart] | None = None
    """The content, if it was sent in parts."""
    tool_calls: list[FunctionCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


class ChatCompletionMessageList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[StoredMessage]
    first_id: str
    last_id: str
    has_more: bool
