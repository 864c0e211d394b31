"""Between the wire's files and the domain's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from frontend.api.files import schema
from frontend.domain.conversations import Page
from frontend.domain.documents import File
from frontend.domain.errors import InvalidRequest


def to_create(fields: Mapping[str, str]) -> schema.CreateFile:
    """`fields`: of the form; the file's stands for its name. Raises msgspec.ValidationError, InvalidRequest."""
    created = msgspec.convert(dict(fields), schema.CreateFile, strict=False)
    for given, other, name in (
        (created.expires_anchor, created.expires_seconds, "expires_after[seconds]"),
        (created.expires_seconds, created.expires_anchor, "expires_after[anchor]"),
    ):
        if given is not UNSET and other is UNSET:
            raise InvalidRequest(
                f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
            )
    return created


def body(file: File) -> schema.FileBody:
    return schema.FileBody(
        id=file.id,
        bytes=file.size_bytes,
        created_at=file.created_at,
        expires_at=UNSET if file.expires_at is None else file.expires_at,
        filename=file.filename,
        purpose=file.purpose,
    )


def files(page: Page[File]) -> schema.FileList:
    data = [body(file) for file in page.data]
    return schema.FileList(
        data=data, first_id=data[0].id if data else "", last_id=data[-1].id if data else "", has_more=page.has_more
    )
