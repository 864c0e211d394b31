"""embedder_backend.config: the parameters of config.pbtxt."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from embedder_backend import config


def parse(**parameters: str) -> config.EmbedderConfig:
    return config.parse({name: {"string_value": text} for name, text in parameters.items()})


def test_a_model_is_a_folder_or_lies_in_a_package() -> None:
    """`package:` is looked up where Python finds the package."""
    assert parse(model="/some/folder").folder == Path("/some/folder")
    assert parse(model="package:msgspec/inside").folder == Path(msgspec.__file__).parent / "inside"
    with pytest.raises(ValueError, match="no_such_package"):
        _ = parse(model="package:no_such_package/model").folder


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": "/x", "threads": "0"}, "threads"),
        ({"model": "/x", "threads": "two"}, "threads"),
        ({"model": "/x", "thread": "1"}, "thread"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, str], named: str) -> None:
    """Misspelt names and wrong values stop the model from loading, with the name in the reason."""
    with pytest.raises(ValueError, match=named):
        parse(**parameters)
