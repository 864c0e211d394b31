"""POST /v1/embeddings."""

from __future__ import annotations

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody
from litestar.types import ASGIApp

from frontend.api.embeddings import mapping
from frontend.api.embeddings.schema import CreateEmbedding, EmbeddingList
from frontend.http.errors import RESPONSES
from frontend.http.replies import JsonReply
from frontend.services.embeddings import EmbeddingService


class EmbeddingController(Controller):
    path = "/v1/embeddings"
    tags = ("Embeddings",)

    @post(
        status_code=200, responses={200: ResponseSpec(EmbeddingList, description="One vector per input.")} | RESPONSES
    )
    async def create(self, data: JSONBody[CreateEmbedding], embeddings: NamedDependency[EmbeddingService]) -> ASGIApp:
        """A vector for each text, in the order of the texts."""
        task = mapping.to_domain(data)

        async def reply() -> EmbeddingList:
            return await mapping.body(await embeddings.create(task), data.encoding_format)

        return JsonReply(reply)
