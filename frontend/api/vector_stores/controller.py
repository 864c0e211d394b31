"""/v1/vector_stores, and the search of one."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from frontend.api.vector_stores import mapping, schema
from frontend.api.vector_stores.polling import polled
from frontend.domain.documents import VectorStore
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.http.pagination import Turned, turned_page_of
from frontend.services.search import SearchService
from frontend.services.vector_stores import VectorStoreService

AnyRequest = Request[Any, Any, Any]
Stores = NamedDependency[VectorStoreService]
MISSING = {404: RESPONSES[404]}
READS, WRITES = needs("retrieval:read"), needs("retrieval:write")


class VectorStoreController(Controller):
    path = "/v1/vector_stores"
    tags = ("Vector stores",)

    @post(status_code=200, responses=MISSING, opt=WRITES)
    async def create(
        self, data: JSONBody[schema.CreateVectorStore], request: AnyRequest, vector_stores: Stores
    ) -> Response[schema.VectorStoreBody]:
        """A new one, with up to 500 files."""
        return reply(vector_stores, await vector_stores.create(principal_of(request).tenant, mapping.to_new(data)))

    @get(dependencies={"page": turned_page_of()}, opt=READS)
    async def list(
        self, request: AnyRequest, vector_stores: Stores, page: NamedDependency[Turned]
    ) -> schema.VectorStoreList:
        """The vector stores there are, by creation."""
        found = await vector_stores.page(principal_of(request).tenant, page.request)
        data = [mapping.body(each, expired=vector_stores.has_expired(each)) for each in page.shown(found.data)]
        return mapping.stores(data, found.has_more)

    @get("/{vector_store_id:str}", responses=MISSING, opt=READS)
    async def retrieve(
        self, vector_store_id: FromPath[str], request: AnyRequest, vector_stores: Stores
    ) -> Response[schema.VectorStoreBody]:
        """One of them, and how far its files are."""
        return reply(vector_stores, await vector_stores.get(principal_of(request).tenant, vector_store_id))

    @post("/{vector_store_id:str}", status_code=200, responses=MISSING, opt=WRITES)
    async def update(
        self,
        vector_store_id: FromPath[str],
        data: JSONBody[schema.UpdateVectorStore],
        request: AnyRequest,
        vector_stores: Stores,
    ) -> Response[schema.VectorStoreBody]:
        """Changes what is sent, and nothing else."""
        tenant, change = principal_of(request).tenant, mapping.to_change(data)
        return reply(vector_stores, await vector_stores.update(tenant, vector_store_id, change))

    @delete("/{vector_store_id:str}", status_code=200, responses=MISSING, opt=WRITES)
    async def remove(
        self, vector_store_id: FromPath[str], request: AnyRequest, vector_stores: Stores
    ) -> schema.VectorStoreDeleted:
        """Deletes it and all that was made of its files; the files stay."""
        await vector_stores.delete(principal_of(request).tenant, vector_store_id)
        return schema.VectorStoreDeleted(id=vector_store_id)

    @post("/{vector_store_id:str}/search", status_code=200, responses=MISSING | {504: RESPONSES[504]}, opt=READS)
    async def search(
        self,
        vector_store_id: FromPath[str],
        data: JSONBody[schema.SearchVectorStore],
        request: AnyRequest,
        search: NamedDependency[SearchService],
    ) -> schema.SearchResultsPage:
        """The passages that fit best, the best first. Finds all that was completed before, whatever process did it."""
        task = mapping.to_task(vector_store_id, data)
        return mapping.results(data, await search.search(principal_of(request).tenant, task))


def reply(service: VectorStoreService, store: VectorStore) -> Response[schema.VectorStoreBody]:
    body = mapping.body(store, expired=service.has_expired(store))
    return polled(body, in_progress=body.status == "in_progress")
