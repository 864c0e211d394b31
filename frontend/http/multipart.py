"""Forms with a file in them, read as they come: nothing of the file is held here. Knows no resource.

Litestar (2.25) reads a form whole before its handler runs: files onto the disk, other fields, however long, into memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ImproperlyConfiguredException
from multipart import (  # type: ignore[import-untyped]  # it has no stubs
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from frontend.domain.errors import InvalidRequest, TooLarge
from frontend.http import body

MOST_PARTS = 16
MOST_FIELD_BYTES = 1024
FORM_BYTES = 64 * 1024
"""What a form may have beside its file: boundaries, headers, other fields."""


class Field(msgspec.Struct, frozen=True):
    name: str
    value: str


class FileStart(msgspec.Struct, frozen=True):
    """The file's bytes follow."""

    name: str
    filename: str


class FileEnd(msgspec.Struct, frozen=True):
    pass


FormEvent = Field | FileStart | bytes | FileEnd
AnyRequest = Request[Any, Any, Any]


async def read_form(request: AnyRequest, most_file_bytes: int) -> AsyncGenerator[FormEvent, None]:
    """A part with a file name is a file. Raises InvalidRequest, TooLarge."""
    try:
        with PushMultipartParser(boundary_of(request), max_segment_count=MOST_PARTS) as parser:
            segment: MultipartSegment | None = None
            value = bytearray()
            async for received in body_of(request, most_file_bytes):
                if parser.closed:
                    break
                for event in parser.parse(received):
                    if isinstance(event, MultipartSegment):
                        segment, value = event, bytearray()
                        if event.filename is not None:
                            yield FileStart(event.name, event.filename)
                        continue
                    assert segment is not None  # the parser tells of a part before what is in it
                    if segment.filename is not None:
                        yield FileEnd() if event is None else bytes(event)
                    elif event is None:
                        yield Field(segment.name, text(segment.name, value))
                    elif len(value) + len(event) > MOST_FIELD_BYTES:
                        raise InvalidRequest(
                            f"Invalid value for '{segment.name}': at most {MOST_FIELD_BYTES} bytes.", param=segment.name
                        )
                    else:
                        value += event
    except MultipartError as exc:
        raise InvalidRequest(f"The form cannot be read: {exc}.", code="invalid_form") from exc


def boundary_of(request: AnyRequest) -> str:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary: str = options.get("boundary", "")
    if kind != "multipart/form-data" or not 0 < len(boundary) <= 256:
        raise InvalidRequest(
            "The body must be a form (multipart/form-data) with a boundary.", code="unsupported_content_type"
        )
    return boundary


async def body_of(request: AnyRequest, most_file_bytes: int) -> AsyncGenerator[bytes, None]:
    """What the client sends, not more than a file of the largest size needs."""
    most = most_file_bytes + FORM_BYTES
    if (announced_bytes(request) or 0) > most:
        raise too_large(most_file_bytes)
    received = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(body.ARRIVES_S):
                message = await request.receive()
        except TimeoutError:
            raise body.late() from None
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The client has left before its file was here.", code="incomplete_upload")
        assert message["type"] == "http.request"
        received += len(message["body"])
        if received > most:
            raise too_large(most_file_bytes)
        if message["body"]:
            yield message["body"]
        more = message.get("more_body", False)


def announced_bytes(request: AnyRequest) -> int | None:
    """Of the whole body. Raises InvalidRequest."""
    try:
        return request.content_length
    except (ValueError, ImproperlyConfiguredException) as exc:
        raise InvalidRequest("The header content-length is no number.", param="content-length") from exc


def too_large(most_file_bytes: int) -> TooLarge:
    return TooLarge(f"The file is too large: at most {most_file_bytes} bytes.", param="file")


def text(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"Invalid value for '{name}': not UTF-8.", param=name) from exc
