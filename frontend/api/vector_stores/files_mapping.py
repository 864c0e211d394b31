"""Between the wire's files of vector stores, and their batches, and the domain's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from frontend.api.vector_stores import files_schema as schema
from frontend.api.vector_stores.mapping import counts, to_chunking
from frontend.api.vector_stores.schema import StaticChunking, StaticSizes
from frontend.domain.documents import FileBatch, FileCounts, IngestStatus, StoreFile
from frontend.domain.errors import InvalidRequest
from frontend.services.store_files import NewStoreFile

_encode = msgspec.json.Encoder().encode


def to_new(data: schema.CreateStoreFile, where: str = "") -> NewStoreFile:
    """`where`: its path, with a dot behind it. Raises InvalidRequest."""
    return NewStoreFile(
        file_id=data.file_id,
        attributes=data.attributes or {},
        chunking=to_chunking(data.chunking_strategy, f"{where}chunking_strategy"),
    )


def to_batch(data: schema.CreateFileBatch) -> tuple[list[NewStoreFile], str]:
    """The files, and the parameter that named them. Raises InvalidRequest."""
    if (data.file_ids is None) is (data.files is None):
        raise InvalidRequest("Either 'file_ids' or 'files' must be given.", param="file_ids")
    if data.file_ids is not None:
        attributes, chunking = data.attributes or {}, to_chunking(data.chunking_strategy)
        ids = dict.fromkeys(data.file_ids)
        return [NewStoreFile(file_id=each, attributes=attributes, chunking=chunking) for each in ids], "file_ids"
    for name in ("attributes", "chunking_strategy"):
        if getattr(data, name) is not None:
            raise InvalidRequest(f"'{name}' is for 'file_ids'; each of 'files' has its own.", param=name)
    files = [to_new(each, f"files[{number}].") for number, each in enumerate(data.files or [])]
    if len({each.file_id for each in files}) < len(files):
        raise InvalidRequest("A file is named twice.", param="files")
    return files, "files"


def body(file: StoreFile) -> schema.StoreFileBody:
    return schema.StoreFileBody(
        id=file.file_id,
        usage_bytes=file.usage_bytes,
        created_at=file.created_at,
        vector_store_id=file.store_id,
        status=file.status,
        last_error=None
        if file.error is None
        else schema.IngestErrorBody(code=file.error.code, message=file.error.message),
        chunking_strategy=StaticChunking(
            static=StaticSizes(
                max_chunk_size_tokens=file.chunking.max_chunk_tokens,
                chunk_overlap_tokens=file.chunking.chunk_overlap_tokens,
            )
        ),
        attributes=dict(file.attributes),
    )


def files(found: Sequence[StoreFile], has_more: bool) -> schema.StoreFileList:
    data = [body(each) for each in found]
    return schema.StoreFileList(
        data=data, first_id=data[0].id if data else "", last_id=data[-1].id if data else "", has_more=has_more
    )


def batch(data: FileBatch) -> schema.FileBatchBody:
    return schema.FileBatchBody(
        id=data.id,
        created_at=data.created_at,
        vector_store_id=data.store_id,
        status="cancelled" if data.cancelled else status(data.counts),
        file_counts=counts(data.counts),
    )


def status(counted: FileCounts) -> IngestStatus:
    if counted.in_progress:
        return "in_progress"
    return "failed" if counted.failed and counted.failed == counted.total else "completed"


async def content(texts: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
    """A StoreFileContent as JSON, in pieces: a text may have 20 million characters."""
    yield b'{"object":"vector_store.file_content.page","data":['
    separator = b""
    async with aclosing(texts):
        async for text in texts:
            yield separator + _encode(schema.StoreFileText(text=text))
            separator = b","
    yield b'],"has_more":false,"next_page":null}'
