"""The bodies of /v1/models."""

from __future__ import annotations

from typing import Literal

import msgspec


class ModelBody(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's model object, and two fields that vLLM's users know: `root`, `max_model_len`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "hermes-2"
    root: str
    max_model_len: int


class ModelList(msgspec.Struct, frozen=True):
    data: list[ModelBody]
    object: Literal["list"] = "list"
