"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import Parameter

from frontend.api.models.schema import ModelBody, ModelList
from frontend.http.auth import needs
from frontend.http.errors import RESPONSES
from frontend.services.models import Model, ModelService


class ModelController(Controller):
    path = "/v1/models"
    tags = ("Models",)
    opt = needs("models")

    @get()
    async def list(self, models: NamedDependency[ModelService]) -> ModelList:
        """The models that can be asked for."""
        return ModelList([body(model) for model in models.list()])

    @get("/{model_id:path}", responses={404: RESPONSES[404]})
    async def get(
        self,
        model_id: Annotated[str, Parameter(description="May hold a slash, as %2F or as it is.")],
        models: NamedDependency[ModelService],
    ) -> ModelBody:
        """One of them."""
        return body(models.find(model_id.removeprefix("/")))


def body(model: Model) -> ModelBody:
    return ModelBody(id=model.id, created=model.created, root=model.root, max_model_len=model.max_model_len)
