"""The models that can be asked for: the one that is loaded, under its own name and under an alias."""

from __future__ import annotations

import msgspec

from frontend.domain.errors import ModelNotFound
from frontend.domain.model_card import ModelCard

ALIAS = "hermes-2"


class Model(msgspec.Struct, frozen=True):
    id: str
    root: str
    """The model that answers; the same as `id` unless `id` is an alias."""
    created: int
    max_model_len: int
    """Prompt and answer together, in tokens."""


class ModelService:
    def __init__(self, card: ModelCard, max_model_len: int) -> None:
        names = dict.fromkeys([card.id, ALIAS])
        self._models = {name: Model(name, card.id, card.created, max_model_len) for name in names}

    def list(self) -> list[Model]:
        return list(self._models.values())

    def get(self, name: str) -> Model:
        """Raises ModelNotFound."""
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFound(name) from None
