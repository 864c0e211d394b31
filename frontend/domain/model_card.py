"""What is known of a prepared model: written once by `hermes2 model prepare`, read by launcher and frontend."""

from __future__ import annotations

from pathlib import Path

import msgspec

MANIFEST = "hermes2.json"


class ChatFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How this model's own template differs from plain ChatML; measured on the template, never taken from a client."""

    bos: str | None = None
    """The control token before the first turn, if the template writes one."""
    default_system: str | None = None
    """The system turn that the template puts in when a chat begins without one."""


class FileDigest(msgspec.Struct, frozen=True):
    size_bytes: int
    sha256: str


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """The name clients see: `smollm2-135m`, a Hugging Face id, or a folder's name."""
    path: str
    """The folder with config.json, tokenizer.json and the weights; relative to the manifest's own."""
    chat: ChatFormat
    raw_bos: str | None
    """The control token that the tokenizer puts before a raw prompt, if any."""
    context_tokens: int
    """The longest context the model was made for."""
    weights_bytes: int
    """Weights in the type they are stored in."""
    weights_dtype: str
    kv_elements_per_token: int
    """Numbers that one token keeps in the KV cache: 2 (key, value) x layers x heads x head size."""
    created: int
    """Unix time of the preparation."""
    files: dict[str, FileDigest] = {}
    """Digests of the files that the preparation wrote itself."""


def read(folder: Path) -> ModelCard:
    """Raises OSError or msgspec.DecodeError; `folder` is a prepared model's."""
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=ModelCard)


def files_of(folder: Path, card: ModelCard) -> Path:
    """Where config.json, tokenizer.json and the weights lie."""
    return (folder / card.path).resolve()
