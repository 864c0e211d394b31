"""hermes2_backend.config: the parameters of config.pbtxt."""

from __future__ import annotations

import pytest
from hermes2_backend import config


def parse(**parameters: str) -> config.BackendConfig:
    return config.parse({name.replace("__", "."): {"string_value": text} for name, text in parameters.items()})


def test_vllms_arguments_are_literals() -> None:
    """A number, a truth value or an object where the text is one, else the text itself."""
    parsed = parse(
        engine="vllm", vllm__max_model_len="8192", vllm__enforce_eager="true", vllm__dtype="bfloat16", max_hold_ms="20"
    )
    assert parsed.vllm == {"max_model_len": 8192, "enforce_eager": True, "dtype": "bfloat16"}
    assert parsed.max_hold_ms == 20.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_hold", "1"),
        ("max_hold_ms", "soon"),
        ("max_hold_ms", "-1"),
        ("warm_up", "yes"),
        ("engine", "other"),
        ("max_hold_ms", "true"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, text: str) -> None:
    """Misspelt names and wrong values stop the model from loading, with the name in the reason."""
    with pytest.raises(ValueError, match=name):
        parse(**{name: text})
