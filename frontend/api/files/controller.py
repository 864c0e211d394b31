"""/v1/files."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.types import ASGIApp

from frontend.api.files import mapping, schema, upload
from frontend.domain.conversations import PageRequest
from frontend.http.auth import needs, principal_of
from frontend.http.download import Download
from frontend.http.errors import RESPONSES
from frontend.http.openapi import form_of
from frontend.http.pagination import long_page_of
from frontend.services.files import FileService
from frontend.settings import Settings

AnyRequest = Request[Any, Any, Any]
Files = NamedDependency[FileService]
MISSING = {404: RESPONSES[404]}
CONTENT = ResponseSpec(
    bytes,
    media_type="application/octet-stream",
    description="The bytes as they were uploaded.",
    generate_examples=False,
)
OfPurpose = Annotated[schema.Purpose | None, QueryParameter(description="Only files of this purpose.")]
READS, WRITES = needs("retrieval:read"), needs("retrieval:write")


class FileController(Controller):
    path = "/v1/files"
    tags = ("Files",)

    @post(
        status_code=200,
        responses={400: RESPONSES[400], 413: RESPONSES[413]},
        request_max_body_size=None,
        operation_class=form_of(schema.CreateFile),
        opt=WRITES,
    )
    async def create(self, request: AnyRequest, files: Files, settings: NamedDependency[Settings]) -> schema.FileBody:
        """Keeps a file, of at most the setting retrieval.max_file; a form with `file`, `purpose` and `expires_after`."""
        tenant = principal_of(request).tenant
        return mapping.body(await upload.receive(request, tenant, files, settings.retrieval.max_file))

    @get(dependencies={"page": long_page_of()}, opt=READS)
    async def list(
        self, request: AnyRequest, files: Files, page: NamedDependency[PageRequest], purpose: OfPurpose = None
    ) -> schema.FileList:
        """The files there are, by creation."""
        return mapping.files(await files.page(principal_of(request).tenant, page, purpose))

    @get("/{file_id:str}", responses=MISSING, opt=READS)
    async def retrieve(self, file_id: FromPath[str], request: AnyRequest, files: Files) -> schema.FileBody:
        """One of them."""
        return mapping.body(await files.get(principal_of(request).tenant, file_id))

    @get("/{file_id:str}/content", responses={200: CONTENT} | MISSING, opt=READS)
    async def content(self, file_id: FromPath[str], request: AnyRequest, files: Files) -> ASGIApp:
        """Its bytes."""
        found = await files.content(principal_of(request).tenant, file_id)
        return Download(found.pieces, found.file.size_bytes, found.file.filename)

    @delete("/{file_id:str}", status_code=200, responses=MISSING, opt=WRITES)
    async def remove(self, file_id: FromPath[str], request: AnyRequest, files: Files) -> schema.FileDeleted:
        """Deletes it, and what was made of it in every vector store."""
        await files.delete(principal_of(request).tenant, file_id)
        return schema.FileDeleted(id=file_id)
