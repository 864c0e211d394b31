"""Between the wire's items and the domain's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from frontend.api import kinds
from frontend.api.items import schema
from frontend.api.logprobs import token_logprob
from frontend.domain import ids
from frontend.domain.citations import FileCitation
from frontend.domain.errors import InvalidRequest
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.items import (
    CompactionItem,
    FileSearchCallItem,
    FileSearchResult,
    FunctionCallItem,
    FunctionOutputItem,
    InputText,
    Item,
    ItemReference,
    ItemRole,
    MessageItem,
    OutputText,
    Part,
    Refusal,
)
from frontend.domain.seal import TenantSeal


def to_items(data: Sequence[schema.InputItem], where: str, seal: TenantSeal) -> list[Item | ItemReference]:
    """With new ids: a client's own could be those of other items. Raises InvalidRequest, naming "`where`[2].content"."""
    items = (to_item(each, f"{where}[{i}]", seal) for i, each in enumerate(data))
    return [item for item in items if item is not None]


def to_item(raw: Mapping[str, Any], where: str, seal: TenantSeal) -> Item | ItemReference | None:
    """None for reasoning, which this model has no use for."""
    unnamed = "message" if "role" in raw else "item_reference"
    data = kinds.read(raw, schema.KINDS, where, default=unnamed, noun="Items")
    match data:
        case schema.InputMessageItem():
            return MessageItem(
                id=ids.new("msg_"), role=data.role, content=parts(data, f"{where}.content"), status=data.status
            )
        case schema.InputFunctionCall():
            return FunctionCallItem(
                id=ids.new("fc_"), call_id=data.call_id, name=data.name, arguments=data.arguments, status=data.status
            )
        case schema.InputFunctionOutput():
            return FunctionOutputItem(
                id=ids.new("fco_"), call_id=data.call_id, output=output(data, f"{where}.output"), status=data.status
            )
        case schema.InputCompaction():
            summary = seal.unseal(data.encrypted_content, f"{where}.encrypted_content")
            return CompactionItem(id=ids.new("cmp_"), summary=summary)
        case schema.InputFileSearchCall():
            return FileSearchCallItem(id=ids.new("fs_"), queries=data.queries, status=data.status)
        case schema.InputReference():
            return ItemReference(data.id)
        case schema.InputReasoning():
            return None
        case _:
            assert_never(data)


def parts(data: schema.InputMessageItem, where: str) -> list[Part]:
    """What an assistant said is output, whatever else is input, whichever of the two its text is called."""
    if isinstance(data.content, str):
        return [text(data.content, data.role)]
    result: list[Part] = []
    for i, part in enumerate(data.content):
        if isinstance(part, schema.MediaPart):
            raise unsupported(part, f"{where}[{i}]")
        if not isinstance(part, schema.RefusalPart):
            result.append(text(part.text, data.role))
        elif data.role == "assistant":
            result.append(Refusal(part.refusal))
        else:
            raise InvalidRequest("Only a message of the role 'assistant' holds refusals.", param=f"{where}[{i}]")
    return result


def text(words: str, role: ItemRole) -> InputText | OutputText:
    return OutputText(words) if role == "assistant" else InputText(words)


def output(data: schema.InputFunctionOutput, where: str) -> str | list[InputText]:
    if isinstance(data.output, str):
        return data.output
    result: list[InputText] = []
    for i, part in enumerate(data.output):
        if isinstance(part, schema.MediaPart):
            raise unsupported(part, f"{where}[{i}]")
        result.append(InputText(part.text))
    return result


def unsupported(part: schema.MediaPart, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"Content of the type {part.__struct_config__.tag!r} is not supported by this service: its model reads text.",
        param=where,
        code="unsupported_parameter",
    )


def to_body(
    item: Item, encoder: Encoder, seal: TenantSeal, with_logprobs: bool, with_results: bool = False
) -> schema.ItemBody:
    match item:
        case MessageItem():
            content = [part_body(part, encoder, with_logprobs) for part in item.content]
            return schema.MessageBody(id=item.id, status=item.status, role=item.role, content=content)
        case FunctionCallItem():
            return schema.FunctionCallBody(
                id=item.id, status=item.status, call_id=item.call_id, name=item.name, arguments=item.arguments
            )
        case FunctionOutputItem():
            words = item.output if isinstance(item.output, str) else [schema.InputTextBody(p.text) for p in item.output]
            return schema.FunctionOutputBody(id=item.id, status=item.status, call_id=item.call_id, output=words)
        case CompactionItem():
            return schema.CompactionBody(id=item.id, encrypted_content=seal.seal(item.summary))
        case FileSearchCallItem():
            shown = with_results and item.status == "completed"
            return schema.FileSearchCallBody(
                id=item.id,
                status=item.status,
                queries=list(item.queries),
                results=[result(each) for each in item.results] if shown else None,
            )
        case _:
            assert_never(item)


def part_body(
    part: Part, encoder: Encoder, with_logprobs: bool
) -> schema.InputTextBody | schema.OutputTextBody | schema.RefusalBody:
    match part:
        case InputText():
            return schema.InputTextBody(part.text)
        case OutputText():
            logprobs = [token_logprob(each, encoder) for each in part.logprobs] if with_logprobs else []
            return schema.OutputTextBody(part.text, logprobs, citations(part.annotations))
        case Refusal():
            return schema.RefusalBody(part.refusal)
        case _:
            assert_never(part)


def result(data: FileSearchResult) -> schema.FileSearchResultBody:
    return schema.FileSearchResultBody(
        file_id=data.file_id,
        filename=data.filename,
        score=data.score,
        attributes=dict(data.attributes),
        text=data.text,
    )


def citations(data: Sequence[FileCitation]) -> list[schema.FileCitationBody]:
    return [citation(each) for each in data]


def citation(data: FileCitation) -> schema.FileCitationBody:
    return schema.FileCitationBody(file_id=data.file_id, filename=data.filename, index=data.index)
