"""hermes2_backend.wire: tensors in, tensors out, on Triton's side."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hermes2_backend import wire
from hermes2_backend.errors import InvalidArgument
from hermes2_backend.generation import Delta, Generation, SequenceDelta, TokenLogprob
from numpy.typing import NDArray


def text(value: bytes) -> NDArray[np.generic]:
    return np.asarray([value], dtype=np.object_)


def flag(value: bool) -> NDArray[np.generic]:
    return np.asarray([value])


def decode(inputs: wire.Tensors, parameters: str = "") -> Generation:
    return wire.decode(inputs, parameters, max_n=8)


def test_the_names_of_nvidias_backend_are_understood() -> None:
    """A request as tritonclient code for NVIDIA's vLLM backend sends it."""
    generation = decode(
        {
            "text_input": text(b"Hello"),
            "stream": flag(True),
            "sampling_parameters": text(b'{"temperature": "0", "max_tokens": "4"}'),
            "exclude_input_in_output": flag(True),
            "return_finish_reason": flag(True),
        }
    )
    assert generation.prompt_text == "Hello"
    assert generation.sampling == {"temperature": 0.0, "max_tokens": 4}
    assert generation.stream
    assert generation.returns == {"finish_reason"}


def test_request_parameters_stand_in_for_the_tensor() -> None:
    """Without sampling_parameters, Triton's request parameters are read, as in NVIDIA's backend."""
    assert decode({"text_input": text(b"x")}, '{"max_tokens": 3}').sampling == {"max_tokens": 3}


@pytest.mark.parametrize(
    ("stream", "exclude", "prepended"),
    [(False, None, True), (False, True, False), (False, False, True), (True, None, False)],
)
def test_the_prompt_is_prepended_as_nvidias_backend_does(stream: bool, exclude: bool | None, prepended: bool) -> None:
    """By default for whole replies, never for streams."""
    inputs = {"text_input": text(b"Hi"), "stream": flag(stream)}
    if exclude is not None:
        inputs["exclude_input_in_output"] = flag(exclude)
    generation = decode(inputs)
    output = wire.encode(Delta([SequenceDelta(text=" there")], 1, 0, True), generation)["text_output"]
    assert output.tolist() == [b"Hi there" if prepended else b" there"]


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ({}, "text_input"),
        ({"text_input": text(b"x"), "input_ids": np.asarray([1], np.int32)}, "text_input"),
        ({"input_ids": np.asarray([], np.int32)}, "input_ids"),
        ({"text_input": text(b"\xff")}, "text_input"),
        ({"text_input": np.asarray([b"a", b"b"], np.object_)}, "text_input"),
        (
            {"text_input": text(b"x"), "stream": flag(True), "exclude_input_in_output": flag(False)},
            "exclude_input_in_output",
        ),
        ({"input_ids": np.asarray([1], np.int32), "exclude_input_in_output": flag(False)}, "exclude_input_in_output"),
        ({"text_input": text(b"x"), "sampling_parameters": text(b"{")}, "sampling_parameters"),
    ],
)
def test_a_bad_request_names_the_tensor(inputs: wire.Tensors, param: str) -> None:
    """What cannot be a request is INVALID_ARG with the name of the tensor."""
    with pytest.raises(InvalidArgument) as caught:
        decode(inputs)
    assert caught.value.param == param


def test_a_response_carries_every_output_that_was_asked_for() -> None:
    """Shapes: (n,) per sequence, token ids flat with num_output_tokens as their lengths, counts (1,)."""
    returns = frozenset(wire.RETURNS)
    generation = Generation([1, 2, 3], None, {"n": 2}, True, False, returns)
    candidate = TokenLogprob(7, -0.5, 1, "a")
    delta = Delta(
        [SequenceDelta("a", [7], [[candidate]], -0.5, None), SequenceDelta("bc", [8, 9], None, -1.5, "stop")],
        3,
        2,
        False,
    )
    tensors = wire.encode(delta, generation)
    assert set(tensors) == set(wire.RETURNS) | {"text_output"}
    assert tensors["text_output"].tolist() == [b"a", b"bc"]
    assert tensors["finish_reason"].tolist() == [b"None", b"stop"]
    assert tensors["token_ids"].tolist() == [7, 8, 9]
    assert tensors["num_output_tokens"].tolist() == [1, 2]
    assert tensors["num_input_tokens"].tolist() == [3]
    assert tensors["num_cached_tokens"].tolist() == [2]
    first, second = tensors["logprobs"].tolist()
    assert json.loads(first) == [{"7": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}]
    assert second == b"null"


def test_deltas_that_leave_together_lose_nothing() -> None:
    """Coalescing appends text, ids and log probabilities, and keeps the last reason and sums."""
    first = Delta([SequenceDelta("a", [1], [[TokenLogprob(1, -1.0, 1, "a")]], -1.0, None)], 3, 0, False)
    first.absorb(Delta([SequenceDelta("b", [2], [[TokenLogprob(2, -2.0, 3, "b")]], -3.0, "length")], 3, 2, True))
    (sequence,) = first.sequences
    assert (sequence.text, sequence.token_ids, sequence.cumulative_logprob) == ("ab", [1, 2], -3.0)
    assert [p[0].token_id for p in sequence.logprobs or []] == [1, 2]
    assert (sequence.finish_reason, first.finished, first.num_cached_tokens) == ("length", True, 2)
