"""The embedder port over gRPC: one ModelInfer call per batch, all on one channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from frontend.domain import ids
from frontend.domain.errors import Internal, InvalidRequest, ServiceError, Timeout, Unavailable
from frontend.observability import tracing
from frontend.triton import embedder_wire
from frontend.triton.engine import CHANNEL_OPTIONS, RESTART_S, RETRY_PAUSE_S, ConnectionLost

FULL = ("Exceeds maximum queue size", "timeout expired")
"""How Triton's messages tell a full queue from a lost connection: both have the status UNAVAILABLE."""
STUB_LOST = "Stub process"
"""In Triton's message for a batch that met a dead Python process: the launcher starts all of Triton anew then."""


class TritonEmbedder:
    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._timeout_s = timeout_s

    async def embed(self, batch: Sequence[Sequence[int]], *, urgent: bool) -> NDArray[np.float32]:
        message = embedder_wire.embed_request(batch, ids.new("emb-"), urgent=urgent)
        with tracing.span("embed", calls=True) as span:
            span.set("hermes2.inputs", len(batch))
            try:
                response = await self._call(message)
            except ConnectionLost:
                await asyncio.sleep(RETRY_PAUSE_S)
                response = await self._call(message)
        return embedder_wire.parse_vectors(response)

    async def _call(self, message: Any) -> Any:
        try:
            return await self._stub.ModelInfer(message, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise translate(exc) from exc


def translate(exc: grpc.aio.AioRpcError) -> ServiceError:
    code, details = exc.code(), exc.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Timeout("The embedding took longer than a request may.")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(details, param="input")
    if code is grpc.StatusCode.UNAVAILABLE and any(text in details for text in FULL):
        return Unavailable("The embedding model has too many requests waiting.")
    if code is grpc.StatusCode.INTERNAL and STUB_LOST not in details:
        return Internal(f"The embedding model failed: {details}")
    kind = Unavailable if code is grpc.StatusCode.INTERNAL else ConnectionLost
    return kind("The embedding model is not available.", retry_after_s=RESTART_S)


@asynccontextmanager
async def open_embedder(address: str, timeout_s: float) -> AsyncIterator[TritonEmbedder]:
    """`address`: host:port of Triton's gRPC server; `timeout_s`: for one batch. Connects when first used."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield TritonEmbedder(channel, timeout_s)
