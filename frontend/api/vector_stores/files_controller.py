"""/v1/vector_stores/{vector_store_id}/files."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.types import ASGIApp

from frontend.api.vector_stores import files_mapping as mapping
from frontend.api.vector_stores import files_schema as schema
from frontend.api.vector_stores.polling import polled
from frontend.domain.documents import IngestStatus, StoreFile
from frontend.http.answers import answer
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.http.json_stream import JsonStream
from frontend.http.pagination import Turned, turned_page_of
from frontend.services.store_files import StoreFileService

AnyRequest = Request[Any, Any, Any]
StoreFiles = NamedDependency[StoreFileService]
MISSING = {404: RESPONSES[404]}
CONTENT = answer(schema.StoreFileContent, description="All of it.")
OfStatus = Annotated[IngestStatus | None, QueryParameter(name="filter", description="Only files of this status.")]
READS, WRITES = needs("retrieval:read"), needs("retrieval:write")


class StoreFileController(Controller):
    path = "/v1/vector_stores/{vector_store_id:str}/files"
    tags = ("Vector stores",)

    @post(status_code=200, responses=MISSING, opt=WRITES)
    async def create(
        self,
        vector_store_id: FromPath[str],
        data: JSONBody[schema.CreateStoreFile],
        request: AnyRequest,
        store_files: StoreFiles,
    ) -> Response[schema.StoreFileBody]:
        """Puts a file into the store; it can be found when its status is `completed`. One that is there is read anew."""
        return reply(await store_files.add(principal_of(request).tenant, vector_store_id, mapping.to_new(data)))

    @get(responses=MISSING, dependencies={"page": turned_page_of()}, opt=READS)
    async def list(
        self,
        vector_store_id: FromPath[str],
        request: AnyRequest,
        store_files: StoreFiles,
        page: NamedDependency[Turned],
        status: OfStatus = None,
    ) -> schema.StoreFileList:
        """Its files, by when they were put in."""
        found = await store_files.page(principal_of(request).tenant, vector_store_id, page.request, status)
        return mapping.files(page.shown(found.data), found.has_more)

    @get("/{file_id:str}", responses=MISSING, opt=READS)
    async def retrieve(
        self, vector_store_id: FromPath[str], file_id: FromPath[str], request: AnyRequest, store_files: StoreFiles
    ) -> Response[schema.StoreFileBody]:
        """How far it is; `last_error` says why it has failed."""
        return reply(await store_files.get(principal_of(request).tenant, vector_store_id, file_id))

    @post("/{file_id:str}", status_code=200, responses=MISSING, opt=WRITES)
    async def update(
        self,
        vector_store_id: FromPath[str],
        file_id: FromPath[str],
        data: JSONBody[schema.UpdateStoreFile],
        request: AnyRequest,
        store_files: StoreFiles,
    ) -> Response[schema.StoreFileBody]:
        """Replaces its attributes; searches filter by them from the next one on."""
        tenant, attributes = principal_of(request).tenant, data.attributes or {}
        return reply(await store_files.set_attributes(tenant, vector_store_id, file_id, attributes))

    @delete("/{file_id:str}", status_code=200, responses=MISSING, opt=WRITES)
    async def remove(
        self, vector_store_id: FromPath[str], file_id: FromPath[str], request: AnyRequest, store_files: StoreFiles
    ) -> schema.StoreFileDeleted:
        """Takes it out of the store, where nothing finds it any more; the file stays."""
        await store_files.remove(principal_of(request).tenant, vector_store_id, file_id)
        return schema.StoreFileDeleted(id=file_id)

    @get("/{file_id:str}/content", responses={200: CONTENT} | MISSING, opt=READS)
    async def content(
        self, vector_store_id: FromPath[str], file_id: FromPath[str], request: AnyRequest, store_files: StoreFiles
    ) -> ASGIApp:
        """The text that was read of it."""
        return JsonStream(
            mapping.content(await store_files.text(principal_of(request).tenant, vector_store_id, file_id))
        )


def reply(file: StoreFile) -> Response[schema.StoreFileBody]:
    return polled(mapping.body(file), in_progress=file.status == "in_progress")
