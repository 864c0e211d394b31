"""The bodies of /v1/files: OpenAI's."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""OpenAI's. They are kept and filtered by; only what is in a vector store is made use of."""


class CreateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A form, multipart/form-data."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    """The bytes. The form must give them a file name."""
    purpose: Purpose
    expires_anchor: Literal["created_at"] | UnsetType = msgspec.field(name="expires_after[anchor]", default=UNSET)
    expires_seconds: Annotated[int, Meta(ge=3600, le=2_592_000)] | UnsetType = msgspec.field(
        name="expires_after[seconds]", default=UNSET
    )
    """From an hour to 30 days."""


class FileBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | UnsetType = UNSET
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    """OpenAI has deprecated it; whether a vector store has read the file is told there."""


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[FileBody]
    first_id: str
    last_id: str
    has_more: bool


class FileDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
