"""The tensors of `embedder` as bytes of KServe's gRPC messages; its other half is embedder_backend/wire.py on Triton's side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from frontend.triton import wire

MODEL = "embedder"
URGENT, PATIENT = 1, 2
"""Priority levels of config.pbtxt; the first goes first."""
INPUTS: Mapping[str, str] = {"input_ids": "INT32", "num_tokens": "INT32"}
OUTPUTS: Mapping[str, str] = {"embedding": "FP32"}


def embed_request(batch: Sequence[Sequence[int]], request_id: str, *, urgent: bool) -> Any:
    """One ModelInferRequest for n rows of token ids; shorter ones are filled up with zeros."""
    width = max(len(row) for row in batch)
    ids = np.zeros((len(batch), width), "<i4")
    for line, row in enumerate(batch):
        ids[line, : len(row)] = row
    counts = np.asarray([[len(row)] for row in batch], "<i4")
    message = pb.ModelInferRequest(model_name=MODEL, id=request_id)
    for name, array in (("input_ids", ids), ("num_tokens", counts)):
        message.inputs.add(name=name, datatype=INPUTS[name], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    message.outputs.add(name="embedding")
    message.parameters["priority"].uint64_param = URGENT if urgent else PATIENT
    return message


def probe_request() -> Any:
    """The shortest request that makes the model work: one row of one token."""
    return embed_request([[0]], "", urgent=True)


def parse_vectors(response: Any) -> NDArray[np.float32]:
    """(n, dim) float32, L2-normalised, from a ModelInferResponse; read-only, over its bytes."""
    (shape,) = [list(output.shape) for output in response.outputs if output.name == "embedding"]
    return np.frombuffer(wire.raw_outputs(response)["embedding"], "<f4").reshape(shape)
