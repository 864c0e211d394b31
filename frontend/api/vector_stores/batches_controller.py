"""/v1/vector_stores/{vector_store_id}/file_batches."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from frontend.api.vector_stores import files_mapping as mapping
from frontend.api.vector_stores import files_schema as schema
from frontend.api.vector_stores.files_controller import MISSING, OfStatus, StoreFiles
from frontend.api.vector_stores.polling import polled
from frontend.domain.documents import FileBatch
from frontend.http.auth import needs, principal_of
from frontend.http.pagination import Turned, turned_page_of

AnyRequest = Request[Any, Any, Any]
READS, WRITES = needs("retrieval:read"), needs("retrieval:write")


class FileBatchController(Controller):
    path = "/v1/vector_stores/{vector_store_id:str}/file_batches"
    tags = ("Vector stores",)

    @post(status_code=200, responses=MISSING, opt=WRITES)
    async def create(
        self,
        vector_store_id: FromPath[str],
        data: JSONBody[schema.CreateFileBatch],
        request: AnyRequest,
        store_files: StoreFiles,
    ) -> Response[schema.FileBatchBody]:
        """Puts up to 2000 files into the store, all of them or none."""
        files, param = mapping.to_batch(data)
        return reply(await store_files.add_batch(principal_of(request).tenant, vector_store_id, files, param))

    @get("/{batch_id:str}", responses=MISSING, opt=READS)
    async def retrieve(
        self, vector_store_id: FromPath[str], batch_id: FromPath[str], request: AnyRequest, store_files: StoreFiles
    ) -> Response[schema.FileBatchBody]:
        """How far its files are."""
        return reply(await store_files.batch(principal_of(request).tenant, vector_store_id, batch_id))

    @post("/{batch_id:str}/cancel", status_code=200, responses=MISSING, opt=WRITES)
    async def cancel(
        self, vector_store_id: FromPath[str], batch_id: FromPath[str], request: AnyRequest, store_files: StoreFiles
    ) -> Response[schema.FileBatchBody]:
        """Its files that are not done are not put in; those that are done stay."""
        return reply(await store_files.cancel_batch(principal_of(request).tenant, vector_store_id, batch_id))

    @get("/{batch_id:str}/files", responses=MISSING, dependencies={"page": turned_page_of()}, opt=READS)
    async def files(
        self,
        vector_store_id: FromPath[str],
        batch_id: FromPath[str],
        request: AnyRequest,
        store_files: StoreFiles,
        page: NamedDependency[Turned],
        status: OfStatus = None,
    ) -> schema.StoreFileList:
        """Its files, by when they were put in."""
        tenant = principal_of(request).tenant
        found = await store_files.page(tenant, vector_store_id, page.request, status, batch_id)
        return mapping.files(page.shown(found.data), found.has_more)


def reply(batch: FileBatch) -> Response[schema.FileBatchBody]:
    body = mapping.batch(batch)
    return polled(body, in_progress=body.status == "in_progress")
