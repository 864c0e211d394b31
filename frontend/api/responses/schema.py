"""The bodies of /v1/responses, in and out, as OpenAI and OpenResponses specify them; events are in events.py.

Where both specify a field, it has a value that is right for both: a description, a safety identifier or a cache key that
nobody sent is "", which OpenAI calls a string and OpenResponses demands. In one place no value can be: the schema of a
JSON format, an object for OpenAI and null for OpenResponses, is OpenAI's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from frontend.api.file_search import FileSearchChoice, FileSearchTool, FileSearchToolBody
from frontend.api.items.schema import CalledName, Include, InputItem, ItemBody
from frontend.api.kinds import schema_of
from frontend.api.parameters import Count, Metadata, TokenChoice
from frontend.domain.responses import Degraded, ErrorCode, IncompleteReason, ResponseStatus
from frontend.http.pagination import ID
from frontend.services.models import ALIAS

ResourceId = Annotated[str, Meta(pattern=ID)]
Truncation = Literal["auto", "disabled"]
Verbosity = Literal["low", "medium", "high"]


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["function"]
    name: CalledName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments; without one there are none."""
    strict: bool | None = None
    """Refuse a schema that cannot be enforced to the letter."""
    defer_loading: bool | None = None
    """Accepted and ignored: the model is told of every tool at once."""


AnyTool = FunctionTool | FileSearchTool
TOOLS: dict[str, type[AnyTool]] = {"function": FunctionTool, "file_search": FileSearchTool}
InputTool = Annotated[dict[str, Any], Meta(extra_json_schema=schema_of(TOOLS.values()))]
"""One of TOOLS; tools.tools tells which, and refuses others by their names."""


class FunctionChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """This function must be called."""

    name: str


class AllowedFunctions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="allowed_tools"
):
    """Only these may be called, though the model is told of all: the prompt, and with it the cache, stays the same."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[FunctionChoice | FileSearchChoice], Meta(min_length=1, max_length=128)]


InputToolChoice = Literal["none", "auto", "required"] | FunctionChoice | FileSearchChoice | AllowedFunctions


class PlainText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    pass


class AnyJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_object"):
    pass


class JsonOfSchema(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"
):
    name: CalledName
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: PlainText | AnyJson | JsonOfSchema | None = None
    verbosity: Verbosity | None = None
    """Accepted and shown: this model has no such knob."""


class ReasoningOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accepted and ignored: this model does not reason apart from its answer."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ConversationReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: ResourceId


class ResponseStreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None
    """Accepted and ignored: there is no padding here."""


MOST_ITEMS = 2048
"""Of one input, as many as a chat may have messages: each costs the event loop some microseconds."""


class ResponseInput(TokenChoice, frozen=True, kw_only=True):
    """What a prompt is made of, and how it is answered."""

    input: str | Annotated[list[InputItem], Meta(max_length=MOST_ITEMS)] | None = None
    """May be left out where there is something to go on from."""
    instructions: str | None = None
    previous_response_id: ResourceId | None = None
    conversation: ResourceId | ConversationReference | None = None
    tools: Annotated[list[InputTool], Meta(max_length=128)] | None = None
    tool_choice: InputToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    truncation: Truncation | None = None
    profile: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    """Ours: a conversation profile, `name` or `name@version`."""
    reasoning: ReasoningOptions | None = None


class CountInputTokens(ResponseInput, frozen=True, kw_only=True):
    """How it would be answered is taken too, and does not count."""

    model: str = ALIAS


class CreateResponse(ResponseInput, frozen=True, kw_only=True):
    include: list[Include] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: Count | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    """Shown where `include` asks for log probabilities."""
    metadata: Metadata | None = None
    # Accepted and shown: they change nothing here (docs/api.md says why, for each).
    max_tool_calls: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=64)] | None = None
    # Accepted and ignored.
    service_tier: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    # Taken only with the value that asks for nothing; refused otherwise.
    prompt: Any = None
    context_management: list[Any] | None = None
    moderation: Any = None


class CompactInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    input: str | Annotated[list[InputItem], Meta(max_length=MOST_ITEMS)] | None = None
    previous_response_id: ResourceId | None = None
    instructions: str | None = None
    # Accepted and ignored.
    prompt_cache_key: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    service_tier: str | None = None


class FunctionToolBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class JsonOfSchemaBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    name: str
    description: str
    schema: dict[str, Any]
    strict: bool


class TextBody(msgspec.Struct, frozen=True, kw_only=True):
    format: PlainText | AnyJson | JsonOfSchemaBody
    verbosity: Verbosity | UnsetType = UNSET


class ReasoningBody(msgspec.Struct, frozen=True):
    """There is none, whatever was asked for."""

    effort: None = None
    summary: None = None


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asked for, or OpenAI's default; kept with the response, to be shown again."""

    instructions: str | None
    tools: list[FunctionToolBody | FileSearchToolBody]
    tool_choice: InputToolChoice
    parallel_tool_calls: bool
    text: TextBody
    reasoning: ReasoningBody = ReasoningBody()
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    max_output_tokens: int | None
    max_tool_calls: int | None
    truncation: Truncation
    store: bool
    service_tier: Literal["default"] = "default"
    metadata: dict[str, str]
    safety_identifier: str
    prompt_cache_key: str
    user: str | UnsetType = UNSET


class InputTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int
    """Tokens of the prompt whose work the engine had kept from earlier requests."""
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class ResponseErrorBody(msgspec.Struct, frozen=True):
    code: ErrorCode
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    reason: IncompleteReason


class ConversationIdBody(msgspec.Struct, frozen=True):
    id: str


class ResponseBody(Parameters, frozen=True, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    error: ResponseErrorBody | None
    incomplete_details: IncompleteDetails | None
    model: str
    background: bool
    previous_response_id: str | None
    conversation: ConversationIdBody | None
    output: list[ItemBody]
    usage: ResponseUsage | None
    degraded: list[Degraded] | UnsetType = UNSET
    """Ours: what the answer had to do without, though its conversation has it."""


class DeletedResponse(msgspec.Struct, frozen=True):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItemList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ItemBody]
    first_id: str
    """The empty text on a page without items: the specification has no null here."""
    last_id: str
    has_more: bool


class InputTokens(msgspec.Struct, frozen=True):
    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class CompactionResult(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[ItemBody]
    usage: ResponseUsage
