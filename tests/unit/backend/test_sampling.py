"""hermes2_backend.sampling: what clients send as sampling_parameters, and what vLLM gets."""

from __future__ import annotations

import json

import pytest
from hermes2_backend import sampling
from hermes2_backend.errors import InvalidArgument


def parse(given: object) -> dict[str, object]:
    return sampling.parse(json.dumps(given), max_n=16)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0", 0.0),
        ("top_p", "0.5", 0.5),
        ("max_tokens", "8", 8),
        ("max_tokens", 8.0, 8),
        ("ignore_eos", "true", True),
        ("ignore_eos", "False", False),
        ("stop", "END", ["END"]),
        ("stop_token_ids", "[1, 2]", [1, 2]),
        ("logit_bias", {"5": "1.5"}, {5: 1.5}),
        ("seed", -3, -3),
    ],
)
def test_strings_become_what_the_name_needs(name: str, text: object, value: object) -> None:
    """genai-perf sends every value as a string; each becomes the type that vLLM wants, and only that type."""
    parsed = parse({name: text})
    assert parsed == {name: value}
    assert type(parsed[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "warm"),
        ("temperature", True),
        ("temperature", "nan"),
        ("max_tokens", 1.5),
        ("max_tokens", "many"),
        ("max_tokens", [1]),
        ("ignore_eos", "perhaps"),
        ("stop", [1]),
        ("stop_token_ids", ["x"]),
        ("logit_bias", {"x": 1}),
        ("logit_bias", [1]),
        ("n", 0),
        ("n", 17),
        ("guided_regex", "(a+)+"),
        ("lora_name", "/etc/passwd"),
    ],
)
def test_a_bad_value_names_its_parameter(name: str, value: object) -> None:
    """What is wrong or unknown is INVALID_ARG with the parameter's name, never a crash and never ignored."""
    with pytest.raises(InvalidArgument) as caught:
        parse({name: value})
    assert caught.value.param == name
    assert name in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", '"x"', "{'a': 1}"])
def test_only_a_json_object_is_taken(text: str) -> None:
    """Anything that is no JSON object is INVALID_ARG on the tensor itself."""
    with pytest.raises(InvalidArgument) as caught:
        sampling.parse(text, max_n=16)
    assert caught.value.param == "sampling_parameters"


@pytest.mark.parametrize("text", ["", "  ", "{}", '{"temperature": null}'])
def test_nothing_said_is_nothing_set(text: str) -> None:
    """Absent and null parameters are left to vLLM's defaults."""
    assert sampling.parse(text, max_n=16) == {}
