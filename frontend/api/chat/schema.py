"""The bodies of /v1/chat/completions, in and out, as OpenAI specifies them; those of stored ones are in stored_schema.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from frontend.api.file_search import FileSearchChoice, FileSearchTool
from frontend.api.items.schema import FileCitationBody
from frontend.api.logprobs import TokenLogprob
from frontend.api.parameters import Count, FinishReason, Metadata, SamplingParameters, UsageBody
from frontend.domain.responses import Degraded
from frontend.http.pagination import ID

ConversationId = Annotated[str, Meta(pattern=ID)]
FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$(?!\n)")]


class TextPart(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="text"
):
    text: str
    prompt_cache_breakpoint: Any = None
    """Accepted and ignored: every prefix is cached."""


class RefusalPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="refusal"):
    refusal: str


class InstructionMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role"):
    content: str | Annotated[list[TextPart], Meta(min_length=1)]
    name: str | None = None
    """Accepted and ignored: ChatML names roles, not people."""


class SystemMessage(InstructionMessage, frozen=True, tag="system"):
    pass


class DeveloperMessage(InstructionMessage, frozen=True, tag="developer"):
    """OpenAI's newer word for system; Hermes-2 knows one role for both."""


class UserMessage(InstructionMessage, frozen=True, tag="user"):
    pass


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: FunctionName
    arguments: str
    """JSON text."""


class FunctionCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """A call, in an answer and when it is sent back."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    function: CalledFunction


class AssistantMessage(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="assistant"
):
    content: str | Annotated[list[TextPart | RefusalPart], Meta(min_length=1)] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[FunctionCall] | None = None
    function_call: Any = None
    audio: Any = None
    annotations: list[Any] | None = None
    file_citations: list[Any] | None = None
    """Accepted and ignored: clients send an answer back as they got it."""
    provider_specific_fields: Any = None
    """Accepted and ignored: LiteLLM sends an answer back with the fields in it that it did not know."""


class ToolMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="tool"):
    """The result of a call."""

    content: str | Annotated[list[TextPart], Meta(min_length=1)]
    tool_call_id: str
    name: str | None = None
    """Accepted and ignored: the call knows its name."""


InputMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments; without one there are none."""
    strict: bool | None = None
    """Refuse a schema that cannot be enforced to the letter."""


class FunctionTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    function: FunctionDefinition


class NamedFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class NamedChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """This tool must be called."""

    function: NamedFunction


class AllowedTools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Meta(min_length=1)]


class AllowedChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="allowed_tools"):
    """Only these may be called, though the model is told of all: the prompt, and with it the cache, stays the same."""

    allowed_tools: AllowedTools


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_object"):
    pass


class NamedSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: FunctionName
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class JsonSchemaFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"):
    json_schema: NamedSchema


class ChatConversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: ConversationId


class CreateChatCompletion(SamplingParameters, frozen=True, kw_only=True):
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[FunctionTool | FileSearchTool], Meta(max_length=128)] | None = None
    """The tool file_search is ours: OpenAI has it in responses only."""
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | FileSearchChoice | AllowedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    profile: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    """Ours: a conversation profile, `name` or `name@version`."""
    conversation: ConversationId | ChatConversation | None = None
    """Ours: a lasting conversation that this turn belongs to."""
    store: bool | None = None
    metadata: Metadata | None = None
    # Accepted and ignored: they change nothing here (docs/api.md says why, for each).
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    safety_identifier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    # Taken only with the value that asks for nothing; refused otherwise.
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    moderation: Any = None


class ChoiceLogprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(msgspec.Struct, frozen=True):
    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    annotations: tuple[()] = ()
    tool_calls: list[FunctionCall] | msgspec.UnsetType = msgspec.UNSET
    file_citations: list[FileCitationBody] | msgspec.UnsetType = msgspec.UNSET
    """Ours, where documents were searched: OpenAI's `annotations` of a chat cite web pages only."""


class Choice(msgspec.Struct, frozen=True):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageBody
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET
    """Of one that is stored."""
    degraded: list[Degraded] | msgspec.UnsetType = msgspec.UNSET
    """Ours: what the answer had to do without, though its conversation has it."""


class FunctionDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    arguments: str
    name: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """id, type and name stand in the first delta of a call only: clients concatenate what they get."""

    index: int
    function: FunctionDelta
    id: str | None = None
    type: Literal["function"] | None = None


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    file_citations: list[FileCitationBody] | None = None
    """Of the whole text, with the last delta."""


class ChunkChoice(msgspec.Struct, frozen=True):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageBody | msgspec.UnsetType | None = msgspec.UNSET
    """Unset unless asked for; then null on every chunk but the last."""
    degraded: list[Degraded] | msgspec.UnsetType = msgspec.UNSET
    """On the first chunk of each choice."""
