"""From a form that is coming to a file that is kept: whatever order its fields have, and nothing of it in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing

from msgspec import UNSET

from frontend.api.files import mapping
from frontend.domain.documents import File
from frontend.domain.errors import InvalidRequest
from frontend.http.multipart import AnyRequest, Field, FileStart, announced_bytes, read_form
from frontend.services.files import FileService, Upload


async def receive(request: AnyRequest, tenant: str, files: FileService, most_bytes: int) -> File:
    """Raises InvalidRequest, TooLarge, QuotaExceeded."""
    fields: dict[str, str] = {}
    upload: Upload | None = None
    async with AsyncExitStack() as stack, aclosing(read_form(request, most_bytes)) as form:
        async for event in form:
            if isinstance(event, Field | FileStart):
                if event.name in fields:
                    raise InvalidRequest(f"The form has more than one field '{event.name}'.", param=event.name)
                check_kind(event)
                fields[event.name] = event.filename if isinstance(event, FileStart) else event.value
            if isinstance(event, FileStart):
                if "purpose" in fields:
                    mapping.to_create(fields)  # what is wrong already need not be uploaded first
                announced = min(announced_bytes(request) or 0, most_bytes)
                upload = await stack.enter_async_context(files.uploading(tenant, event.filename, announced))
            elif isinstance(event, bytes) and upload is not None:
                await upload.write(event)
        wanted = mapping.to_create(fields)
        assert upload is not None
        seconds = wanted.expires_seconds
        return await upload.finish(wanted.purpose, None if seconds is UNSET else seconds)


def check_kind(event: Field | FileStart) -> None:
    if (event.name == "file") is not isinstance(event, FileStart):
        what = "a file, with a file name, was" if event.name == "file" else "no file was"
        raise InvalidRequest(f"Invalid value for '{event.name}': {what} expected.", param=event.name)
