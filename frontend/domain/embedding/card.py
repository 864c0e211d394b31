"""What is known of the embedding model; read from the files of its sentence-transformers folder."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec

WEIGHTS = ("*.safetensors", "*.bin", "tokenizer.json")


class EmbeddingCard(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """The name clients see."""
    dimensions: int
    """Numbers of one vector."""
    max_tokens: int
    """Tokens of one text that the model reads, its control tokens included."""
    created: int
    """Unix time of the folder."""
    digest: str
    """Of weights and vocabulary: vectors of models with different ones cannot be compared."""


class _Reading(msgspec.Struct, frozen=True):
    """sentence_bert_config.json"""

    max_seq_length: int


class _Pooling(msgspec.Struct, frozen=True):
    """1_Pooling/config.json"""

    word_embedding_dimension: int


def read(folder: Path, name: str) -> EmbeddingCard:
    """Raises OSError or msgspec.DecodeError if `folder` is not a sentence-transformers model."""
    reading, pooling = folder / "sentence_bert_config.json", folder / "1_Pooling/config.json"
    return EmbeddingCard(
        id=name,
        dimensions=msgspec.json.decode(pooling.read_bytes(), type=_Pooling).word_embedding_dimension,
        max_tokens=msgspec.json.decode(reading.read_bytes(), type=_Reading).max_seq_length,
        created=int(reading.stat().st_mtime),
        digest=digest(folder),
    )


@cache
def digest(folder: Path) -> str:
    """SHA-256, as 64 hexadecimal digits; 0.1 s for 90 MB."""
    total = hashlib.sha256()
    for path in sorted(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        total.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
