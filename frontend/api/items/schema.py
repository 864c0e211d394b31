"""The items of inputs and outputs, as OpenAI and OpenResponses specify them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from frontend.api.kinds import schema_of
from frontend.api.logprobs import TokenLogprob
from frontend.domain.items import ItemRole, ItemStatus
from frontend.http.pagination import ID

SearchStatus = Literal["in_progress", "searching", "completed", "incomplete", "failed"]
CalledName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$(?!\n)")]
CallId = Annotated[str, Meta(min_length=1, max_length=128)]
Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]
"""OpenAI's whole enumeration: what can never be here is not missed."""
INCLUDABLE: tuple[Include, ...] = get_args(Include)
LOGPROBS: Include = "message.output_text.logprobs"
RESULTS: Include = "file_search_call.results"


class InputTextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="input_text"):
    text: str
    prompt_cache_breakpoint: Any = None
    """Accepted and ignored: every prefix is cached."""


class PlainTextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    text: str


class OutputTextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="output_text"):
    """An answer's text, sent back as it was given."""

    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class RefusalPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="refusal"):
    refusal: str


class InputImagePart(msgspec.Struct, frozen=True, tag_field="type", tag="input_image"):
    """Refused, by its name; so are files and audio."""


class InputFilePart(msgspec.Struct, frozen=True, tag_field="type", tag="input_file"):
    """Refused."""


class InputAudioPart(msgspec.Struct, frozen=True, tag_field="type", tag="input_audio"):
    """Refused."""


MediaPart = InputImagePart | InputFilePart | InputAudioPart
InputPart = InputTextPart | PlainTextPart | OutputTextPart | RefusalPart | MediaPart


class InputMessageItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's EasyInputMessage, InputMessage and OutputMessage: any text may stand under any role."""

    role: ItemRole
    content: str | list[InputPart]
    type: Literal["message"] = "message"
    id: str | None = None
    status: ItemStatus = "completed"
    phase: str | None = None
    """Accepted and ignored, as the id is: items get new ones."""


class InputFunctionCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["function_call"]
    call_id: CallId
    name: CalledName
    arguments: str
    id: str | None = None
    status: ItemStatus = "completed"


class InputFunctionOutput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["function_call_output"]
    call_id: CallId
    output: str | list[InputTextPart | MediaPart]
    id: str | None = None
    status: ItemStatus = "completed"


class InputCompaction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What /v1/responses/compact gave, sent back."""

    type: Literal["compaction"]
    encrypted_content: str
    id: str | None = None
    created_by: str | None = None


class InputFileSearchCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search, sent back: it is kept, and no prompt shows it."""

    type: Literal["file_search_call"]
    queries: Annotated[list[Annotated[str, Meta(max_length=4096)]], Meta(max_length=16)]
    id: str | None = None
    status: SearchStatus = "completed"
    results: Any = None
    """Accepted and ignored."""


class InputReasoning(msgspec.Struct, frozen=True, kw_only=True):
    """Another model's thoughts, in a history that began elsewhere: accepted, and left out."""

    type: Literal["reasoning"]


class InputReference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item that is kept, by its id."""

    id: Annotated[str, Meta(pattern=ID)]
    type: Literal["item_reference"] = "item_reference"


AnyInput = (
    InputMessageItem
    | InputFunctionCall
    | InputFunctionOutput
    | InputCompaction
    | InputFileSearchCall
    | InputReasoning
    | InputReference
)
KINDS: dict[str, type[AnyInput]] = {
    "message": InputMessageItem,
    "function_call": InputFunctionCall,
    "function_call_output": InputFunctionOutput,
    "compaction": InputCompaction,
    "file_search_call": InputFileSearchCall,
    "reasoning": InputReasoning,
    "item_reference": InputReference,
}
InputItem = Annotated[dict[str, Any], Meta(extra_json_schema=schema_of(KINDS.values()))]
"""One of KINDS; mapping.to_items tells which."""


class InputTextBody(msgspec.Struct, frozen=True, tag_field="type", tag="input_text"):
    text: str


class FileCitationBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file_citation"):
    file_id: str
    filename: str
    index: int
    """Of a character in the text, from 0 on."""


class OutputTextBody(msgspec.Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str
    logprobs: list[TokenLogprob] = []
    annotations: list[FileCitationBody] = []


class RefusalBody(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class MessageBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    role: ItemRole
    content: list[InputTextBody | OutputTextBody | RefusalBody]


class FunctionCallBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class FunctionOutputBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"):
    id: str
    status: ItemStatus
    call_id: str
    output: str | list[InputTextBody]


class CompactionBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="compaction"):
    id: str
    encrypted_content: str


class FileSearchResultBody(msgspec.Struct, frozen=True, kw_only=True):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | float | bool]
    text: str


class FileSearchCallBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file_search_call"):
    id: str
    status: SearchStatus
    queries: list[str]
    results: list[FileSearchResultBody] | None
    """The passages that the model was given, where `include` asks for them."""


ItemBody = MessageBody | FunctionCallBody | FunctionOutputBody | CompactionBody | FileSearchCallBody
