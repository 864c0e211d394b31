"""Between the wire's embeddings and the domain's."""

from __future__ import annotations

import asyncio
import base64
from typing import Literal, TypeGuard, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from frontend.api.embeddings import schema
from frontend.domain.errors import InvalidRequest
from frontend.services.embeddings import Embeddings, EmbeddingTask

ROWS_PER_STEP = 64
"""Vectors that are encoded before others get the event loop: 1.5 ms of numbers, 0.2 ms of base64."""

_encode = msgspec.json.Encoder().encode


def to_domain(data: schema.CreateEmbedding) -> EmbeddingTask:
    """Raises InvalidRequest, naming the parameter."""
    return EmbeddingTask(model=data.model, inputs=inputs(data.input), dimensions=data.dimensions)


def inputs(value: str | list[str | int | list[int]]) -> list[str] | list[list[int]]:
    """Texts, or token ids of texts. Raises InvalidRequest."""
    if isinstance(value, str):
        return [value]
    if all_ids(value):
        return [value]
    if not (all_texts(value) or all_lists(value)):
        raise InvalidRequest(
            "Invalid value for 'input': texts, token ids and lists of token ids cannot be mixed.", param="input"
        )
    if len(value) > schema.MAX_INPUTS:
        raise InvalidRequest(
            f"Invalid value for 'input': at most {schema.MAX_INPUTS} inputs are taken, not {len(value)}.", param="input"
        )
    return value


def all_ids(value: list[str | int | list[int]]) -> TypeGuard[list[int]]:
    return all(isinstance(each, int) for each in value)


def all_texts(value: list[str | int | list[int]]) -> TypeGuard[list[str]]:
    return all(isinstance(each, str) for each in value)


def all_lists(value: list[str | int | list[int]]) -> TypeGuard[list[list[int]]]:
    return all(isinstance(each, list) for each in value)


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
