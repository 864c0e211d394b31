"""The models that can be asked for, each under its own name and under an alias: one that talks, and one that embeds."""

from __future__ import annotations

import msgspec

from frontend.domain.embedding.card import EmbeddingCard
from frontend.domain.errors import ModelNotFound, NotFound
from frontend.domain.model_card import ModelCard

ALIAS = "hermes-2"
EMBEDDER_ALIAS = "hermes-2-embedder"


class Model(msgspec.Struct, frozen=True):
    id: str
    root: str
    """The model that answers; the same as `id` unless `id` is an alias."""
    created: int
    max_model_len: int
    """Prompt and answer together, in tokens; for a model that embeds: one input."""


class ModelService:
    def __init__(self, card: ModelCard, max_model_len: int, embedding: EmbeddingCard | None) -> None:
        names = dict.fromkeys([card.id, ALIAS])
        self._talking = {name: Model(name, card.id, card.created, max_model_len) for name in names}
        self._embedding: dict[str, Model] = {}
        if embedding is not None:
            for name in dict.fromkeys([embedding.id, EMBEDDER_ALIAS]):
                self._embedding[name] = Model(name, embedding.id, embedding.created, embedding.max_tokens)

    def list(self) -> list[Model]:
        return [*self._talking.values(), *self._embedding.values()]

    def find(self, name: str) -> Model:
        """A model of either kind. Raises ModelNotFound."""
        try:
            return (self._talking | self._embedding)[name]
        except KeyError:
            raise ModelNotFound(name) from None

    def get(self, name: str) -> Model:
        """A model that talks. Raises ModelNotFound, or NotFound that says what the model is for."""
        return self._chosen(name, self._talking, "makes embeddings, and no text: use it with /v1/embeddings.")

    def get_embedding(self, name: str) -> Model:
        """A model that embeds. Raises ModelNotFound, or NotFound that says what the model is for."""
        return self._chosen(name, self._embedding, f"makes text, and no embeddings: use {EMBEDDER_ALIAS!r}.")

    def _chosen(self, name: str, models: dict[str, Model], other_use: str) -> Model:
        if name not in models and self.find(name):
            raise NotFound(f"The model {name!r} {other_use}", param="model", code=ModelNotFound.code)
        return models[name]
