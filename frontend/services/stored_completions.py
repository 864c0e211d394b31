"""Chat completions that are kept because their requests said `store`. What is in them is the API's: here it is bytes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from frontend.domain.conversations import Page, PageRequest
from frontend.domain.errors import ModelNotFound, NotFound
from frontend.domain.storage import Database, StoredCompletion
from frontend.services.models import ModelService
from frontend.services.resource_ids import could_be


class StoredCompletionService:
    def __init__(self, database: Database, models: ModelService) -> None:
        self._database = database
        self._models = models

    async def add(self, tenant: str, completion: StoredCompletion) -> None:
        """Raises Unavailable."""
        async with self._database.writing() as uow:
            await uow.completions.add(tenant, completion)

    async def get(self, tenant: str, completion_id: str) -> StoredCompletion:
        """Raises NotFound."""
        async with self._database.reading() as uow:
            return await uow.completions.get(tenant, known_form(completion_id))

    async def page(
        self, tenant: str, request: PageRequest, model: str | None, metadata: Mapping[str, str]
    ) -> Page[StoredCompletion]:
        """Those that this model made, whose metadata hold all of `metadata`. Raises InvalidRequest for `request.after`."""
        if model is not None:
            model = self._root(model)
        async with self._database.reading() as uow:
            return await uow.completions.page(tenant, request, model=model, metadata=metadata)

    async def update(self, tenant: str, completion_id: str, metadata: Mapping[str, str]) -> StoredCompletion:
        """Raises NotFound."""
        async with self._database.writing() as uow:
            before = await uow.completions.get(tenant, known_form(completion_id))
            return await uow.completions.set_metadata(
                tenant, completion_id, metadata, with_metadata(before.body, metadata)
            )

    async def delete(self, tenant: str, completion_id: str) -> None:
        """Raises NotFound."""
        async with self._database.writing() as uow:
            await uow.completions.delete(tenant, known_form(completion_id))

    def _root(self, model: str) -> str:
        """Completions are kept under the name of the model that made them."""
        try:
            return self._models.find(model).root
        except ModelNotFound:
            return model  # it may have been here once


def with_metadata(body: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same completion; everything else in it stays byte for byte."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(fields | {"metadata": msgspec.Raw(msgspec.json.encode(metadata))})


def known_form(completion_id: str) -> str:
    """Raises NotFound for what cannot be a completion's id."""
    if not could_be(completion_id):
        raise NotFound(f"No chat completion found with id {completion_id!r}.")
    return completion_id
