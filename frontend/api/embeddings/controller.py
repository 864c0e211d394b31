"""POST /v1/embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.types import ASGIApp

from frontend.api.embeddings import mapping
from frontend.api.embeddings.schema import CreateEmbedding, EmbeddingList
from frontend.http.answers import answer
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.http.replies import JsonReply
from frontend.services.embeddings import EmbeddingService
from frontend.services.limits.gate import Gate


class EmbeddingController(Controller):
    path = "/v1/embeddings"
    tags = ("Embeddings",)
    opt = needs("chat", gated=True)

    @post(status_code=200, responses={200: answer(EmbeddingList, description="One vector per input.")} | RESPONSES)
    async def create(
        self,
        data: JSONBody[CreateEmbedding],
        request: Request[Any, Any, Any],
        embeddings: NamedDependency[EmbeddingService],
        gate: NamedDependency[Gate],
    ) -> ASGIApp:
        """A vector for each text, in the order of the texts."""
        task, counted = mapping.to_domain(data), partial(gate.counted, principal_of(request))

        async def reply() -> EmbeddingList:
            return await mapping.body(await embeddings.create(task, counted), data.encoding_format)

        return JsonReply(reply)
