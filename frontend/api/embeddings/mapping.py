"""Between the wire's embeddings and the domain's."""

from __future__ import annotations

import asyncio
import base64
from typing import Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from frontend.api.embeddings import schema
from frontend.api.parameters import texts_or_ids
from frontend.services.embeddings import Embeddings, EmbeddingTask

ROWS_PER_STEP = 64
"""Vectors that are encoded before others get the event loop: 1.5 ms of numbers, 0.2 ms of base64."""

_encode = msgspec.json.Encoder().encode


def to_domain(data: schema.CreateEmbedding) -> EmbeddingTask:
    """Raises InvalidRequest, naming the parameter."""
    return EmbeddingTask(
        model=data.model, inputs=texts_or_ids(data.input, "input", schema.MAX_INPUTS), dimensions=data.dimensions
    )


async def body(embeddings: Embeddings, encoding: Literal["float", "base64"] | None) -> schema.EmbeddingList:
    """Encodes vector by vector: 2048 of them as numbers take 45 ms, for which nobody else should wait."""
    data: list[schema.EmbeddingBody] = []
    for index, vector in enumerate(embeddings.vectors):
        if index % ROWS_PER_STEP == ROWS_PER_STEP - 1:
            await asyncio.sleep(0)
        data.append(
            schema.EmbeddingBody(
                index=index, embedding=in_base64(vector) if encoding == "base64" else in_numbers(vector)
            )
        )
    usage = schema.EmbeddingUsage(embeddings.prompt_tokens, embeddings.prompt_tokens)
    return schema.EmbeddingList(data=data, model=embeddings.model.root, usage=usage)


def in_base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def in_numbers(vector: NDArray[np.float32]) -> list[float]:
    """Ready-made JSON, which the reply's encoder copies as it is."""
    return cast(list[float], msgspec.Raw(_encode(vector.tolist())))
