"""config.pbtxt, the model's wire and the frontend's wire say the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hermes2_backend import config, sampling
from hermes2_backend import wire as model_wire
from hermes2_backend.errors import InvalidArgument, Unavailable
from hermes2_backend.generation import Delta, Generation, SequenceDelta, TokenLogprob
from tritonclient.grpc import model_config_pb2, service_pb2

from frontend.domain.generation import ChoiceDelta, Constraint, GenerationDelta, GenerationRequest, Sampling
from frontend.settings import ROOT
from frontend.triton import wire as frontend_wire

CONFIG = ROOT / "model_repository/hermes2/config.pbtxt"
KSERVE = {
    "TYPE_STRING": "BYTES",
    "TYPE_BOOL": "BOOL",
    "TYPE_INT32": "INT32",
    "TYPE_UINT32": "UINT32",
    "TYPE_FP32": "FP32",
}
NUMPY = {"INT32": np.int32, "BOOL": np.bool_, "UINT32": np.uint32}


@pytest.fixture(scope="module")
def pbtxt() -> model_config_pb2.ModelConfig:
    return text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())


def type_name(value: int) -> str:
    return str(model_config_pb2.DataType.Name(value))


def test_config_declares_the_models_tensors(pbtxt: model_config_pb2.ModelConfig) -> None:
    """Names and types of config.pbtxt are those of hermes2_backend/wire.py; every input is optional."""
    assert {i.name: type_name(i.data_type) for i in pbtxt.input} == model_wire.INPUTS
    assert {o.name: type_name(o.data_type) for o in pbtxt.output} == model_wire.OUTPUTS
    assert all(i.optional for i in pbtxt.input)
    assert pbtxt.model_transaction_policy.decoupled


def test_the_frontend_uses_tensors_that_the_model_has() -> None:
    """What the frontend sends and reads is declared, with the same types."""
    for ours, theirs in ((frontend_wire.INPUTS, model_wire.INPUTS), (frontend_wire.OUTPUTS, model_wire.OUTPUTS)):
        assert {name: KSERVE[theirs[name]] for name in ours} == ours


def test_the_parameters_of_config_are_read_by_the_model(pbtxt: model_config_pb2.ModelConfig) -> None:
    """config.pbtxt as it stands in the repository is accepted by hermes2_backend/config.py."""
    parsed = config.parse({name: {"string_value": p.string_value} for name, p in pbtxt.parameters.items()})
    assert parsed.vllm["model"] == "NousResearch/Hermes-2-Pro-Llama-3-8B"
    assert parsed.vllm["kv_cache_memory_bytes"] == 8 * 2**30


def test_the_interface_holds_nvidias() -> None:
    """Every tensor of NVIDIA's vLLM backend that a text model can serve exists under its name and type."""
    nvidia_inputs = ["text_input", "stream", "sampling_parameters", "exclude_input_in_output"]
    nvidia_outputs = {
        "text_output": "TYPE_STRING",
        "finish_reason": "TYPE_STRING",
        "cumulative_logprob": "TYPE_FP32",
        "logprobs": "TYPE_STRING",
        "num_input_tokens": "TYPE_UINT32",
        "num_output_tokens": "TYPE_UINT32",
    }
    assert set(nvidia_inputs) <= set(model_wire.INPUTS)
    assert {name: model_wire.OUTPUTS[name] for name in nvidia_outputs} == nvidia_outputs
    assert {f"return_{name}" for name in nvidia_outputs if name != "text_output"} <= set(model_wire.INPUTS)


def sent(request: GenerationRequest) -> Generation:
    """A request as it arrives on the model's side."""
    message = frontend_wire.generate_request(request, "req-1")
    tensors = {}
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        if tensor.datatype == "BYTES":
            tensors[tensor.name] = np.asarray(list(frontend_wire.strings(raw)), np.object_)
        else:
            tensors[tensor.name] = np.frombuffer(raw, NUMPY[tensor.datatype])
        assert list(tensor.shape) == [tensors[tensor.name].size]
    return model_wire.decode(tensors, "", max_n=8)


def test_a_request_arrives_as_it_was_sent() -> None:
    """Every field of Sampling that is set reaches vLLM's parameters; what is not set is not sent."""
    everything = Sampling(
        max_tokens=7,
        n=2,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        min_tokens=1,
        stop=["END"],
        stop_token_ids=[2],
        ignore_eos=True,
        seed=-7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        repetition_penalty=1.1,
        logit_bias={5: -1.5},
        logprobs=3,
        prompt_logprobs=2,
    )
    generation = sent(
        GenerationRequest(prompt_ids=[1, 70000], sampling=everything, stream=True, cache_salt="t", traceparent="00-ab")
    )
    assert generation.sampling == {name: getattr(everything, name) for name in Sampling.__struct_fields__}
    assert set(Sampling.__struct_fields__) <= set(sampling.PARAMETERS)
    assert generation.prompt_ids == [1, 70000]
    assert (generation.stream, generation.cache_salt, generation.traceparent) == (True, "t", "00-ab")
    assert generation.returns == {
        *("finish_reason", "num_output_tokens", "num_cached_tokens"),
        *("logprobs", "token_ids", "prompt_logprobs"),
    }
    plain = sent(GenerationRequest(prompt_ids=[1], sampling=Sampling(max_tokens=3), stream=False, cache_salt="t"))
    assert plain.sampling == {"max_tokens": 3}
    assert plain.traceparent is None


def test_a_constraint_arrives_as_a_structural_tag() -> None:
    """vLLM gets it as the JSON text that its parameters want."""
    request = GenerationRequest(
        prompt_ids=[1],
        sampling=Sampling(max_tokens=3),
        stream=False,
        cache_salt="t",
        constraint=Constraint(json_schema={"type": "object"}),
    )
    structure = sent(request).sampling["structured_outputs"]
    assert isinstance(structure, dict)
    assert json.loads(structure["structural_tag"])["format"]["json_schema"] == {"type": "object"}


def answered(tensors: model_wire.Tensors) -> service_pb2.ModelInferResponse:
    """A response as Triton puts it on the wire."""
    response = service_pb2.ModelInferResponse()
    for name, array in tensors.items():
        response.outputs.add(name=name, datatype=KSERVE[model_wire.OUTPUTS[name]], shape=list(array.shape))
        if array.dtype == np.object_:
            response.raw_output_contents.append(b"".join(frontend_wire.text(item)[1] for item in array))
        else:
            response.raw_output_contents.append(array.tobytes())
    return response


def test_a_response_arrives_as_it_was_sent() -> None:
    """Texts, counts, reasons and log probabilities of n sequences; a sequence that gained nothing is left out."""
    returns = frozenset(
        {
            *("finish_reason", "num_output_tokens", "num_cached_tokens"),
            *("logprobs", "token_ids", "prompt_logprobs"),
        }
    )
    generation = Generation([1], None, {"n": 3, "logprobs": 1}, True, False, returns)
    sampled_low = [TokenLogprob(9, -3.0, 4, "z"), TokenLogprob(7, -0.1, 1, "a")]
    delta = Delta(
        [
            SequenceDelta("ü", [9], [sampled_low], None, None),
            SequenceDelta("", [], [], None, None),
            SequenceDelta("", [2], [[TokenLogprob(2, -0.2, 1, "")]], None, "stop"),
        ],
        1,
        128,
        False,
        [[], [TokenLogprob(8, -0.5, 1, "b")]],
    )
    raw = frontend_wire.raw_outputs(answered(model_wire.encode(delta, generation)))
    request = GenerationRequest(
        prompt_ids=[3, 8], sampling=Sampling(n=3, logprobs=1, prompt_logprobs=0), stream=True, cache_salt="s"
    )
    parsed = frontend_wire.parse_delta(raw, request)
    assert parsed.num_cached_tokens == 128
    assert [(c.index, c.text, c.num_tokens, c.finish_reason) for c in parsed.choices] == [
        (0, "ü", 1, None),
        (2, "", 1, "stop"),
    ]
    (position,) = parsed.choices[0].logprobs or []
    assert (position.sampled.token_id, position.sampled.logprob) == (9, -3.0)
    assert [(c.token_id, c.logprob) for c in position.top] == [(7, -0.1)]
    first, second = parsed.prompt_logprobs or []
    assert (first.sampled.token_id, math.isnan(first.sampled.logprob)) == (3, True)
    assert (second.sampled.token_id, second.sampled.logprob) == (8, -0.5)


def test_mail_arrives_as_it_was_sent() -> None:
    """What several requests gained, without the sequences that gained nothing."""
    letters = [
        (
            "req-1",
            Delta(
                [SequenceDelta("ü", [9, 8]), SequenceDelta(), SequenceDelta("", [2], finish_reason="stop")], 1, 7, False
            ),
        ),
        ("req-2", Delta([SequenceDelta(" word", [3])], 1, 0, False)),
    ]
    raw = frontend_wire.raw_outputs(answered(model_wire.encode_mail(letters)))
    assert list(frontend_wire.parse_mail(raw)) == [
        ("req-1", GenerationDelta([ChoiceDelta(0, "ü", 2, None, None), ChoiceDelta(2, "", 1, None, "stop")], 7)),
        ("req-2", GenerationDelta([ChoiceDelta(0, " word", 1, None, None)], 0)),
    ]


def test_a_mailbox_is_opened_and_named() -> None:
    """Alone it opens one; with a prompt it is where the deltas go."""
    request = GenerationRequest(prompt_ids=[1], sampling=Sampling(max_tokens=3), stream=True, cache_salt="t")
    for message, opens in (
        (frontend_wire.mailbox_request("mail-1"), True),
        (frontend_wire.generate_request(request, "req-1", "mail-1"), False),
    ):
        tensors = {tensor.name: np.asarray([b"mail-1"], np.object_) for tensor in message.inputs}
        assert model_wire.is_mailbox(tensors) == opens
        assert model_wire.text(tensors, "mailbox") == "mail-1"


@pytest.mark.parametrize("error", [InvalidArgument("must be a number", "temperature"), Unavailable("gone")])
def test_an_error_arrives_as_it_was_sent(error: InvalidArgument | Unavailable) -> None:
    """Code, message and parameter of the structured error."""
    parsed = frontend_wire.parse_error(frontend_wire.raw_outputs(answered(model_wire.encode_error(error))))
    assert parsed == frontend_wire.WireError(error.code, error.message, error.param)


def test_the_probe_arrives() -> None:
    """Health and metrics go the same way as requests."""
    message = frontend_wire.probe_request("health")
    assert [i.name for i in message.inputs] == ["probe", "return_error"]
    assert frontend_wire.parse_probe(frontend_wire.raw_outputs(answered(model_wire.encode_probe("{}")))) == "{}"


def test_every_vllm_import_stands_in_four_modules() -> None:
    """What moves with vLLM's versions: in vllm_compat.py and, in vLLM's own processes, in the worker and its kernels."""
    package = Path(model_wire.__file__).parent
    importing = {
        p.name
        for p in package.rglob("*.py")
        if any(line.startswith(("from vllm", "import vllm")) for line in p.read_text().splitlines())
    }
    assert importing == {"vllm_compat.py", "cpu_worker.py", "cpu_attention.py", "cpu_linear.py"}
