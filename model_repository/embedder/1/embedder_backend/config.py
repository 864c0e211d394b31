"""Reads the `parameters` of config.pbtxt: everything about the embedder that may differ between two machines."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

PACKAGE = "package:"


@dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """Each field is a parameter of the same name."""

    model: str
    """A folder of a sentence-transformers model, or `package:<name>/<folder>`: a folder inside an installed package."""
    threads: int = 1
    """Cores that one batch may use. The language model works on the same ones."""
    required_numpy: str = ""
    """The exact numpy version that this Triton's Python stub can read, if it cares."""

    @property
    def folder(self) -> Path:
        """Raises ValueError if the package is not installed."""
        if not self.model.startswith(PACKAGE):
            return Path(self.model)
        package, _, inside = self.model.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ValueError(f"config.pbtxt: model: the package {package} is not installed")
        return Path(spec.origin).parent / inside


def parse(parameters: Mapping[str, Mapping[str, str]]) -> EmbedderConfig:
    """`parameters` as Triton hands them over: {name: {"string_value": text}}. Raises ValueError naming the parameter."""
    values = {name: holder["string_value"] for name, holder in parameters.items()}
    known = {field.name for field in fields(EmbedderConfig)}
    for name in values:
        if name not in known:
            raise ValueError(f"config.pbtxt: unknown parameter {name}")
    if not values.get("model"):
        raise ValueError("config.pbtxt: model is missing")
    threads = values.get("threads", "1")
    if not threads.isdigit() or int(threads) < 1:
        raise ValueError(f"config.pbtxt: threads must be at least 1, not {threads!r}")
    return EmbedderConfig(values["model"], int(threads), values.get("required_numpy", ""))
