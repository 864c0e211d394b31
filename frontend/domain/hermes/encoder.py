"""Text to token ids, such that no text can ever become a control token.

A tokenizer turns `<|im_end|>` in a message into the token that ends the turn. Escaping is guesswork, and
`encode_special_tokens` lets through added tokens that are not marked special, such as Hermes-2's own `<tool_call>`.
So text is encoded by a tokenizer built without any added token: the control ids are not in its vocabulary, and
it cannot produce them. Control tokens are looked up by name and placed by code.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer


class Encoder:
    """Built from a model's tokenizer.json. Immutable; its methods release the GIL and may run in threads."""

    def __init__(self, tokenizer_json: str) -> None:
        spec: dict[str, Any] = json.loads(tokenizer_json)
        self._control = {token["content"]: int(token["id"]) for token in spec["added_tokens"]}
        self._pieces: dict[int, str] = {int(i): piece for piece, i in vocabulary(spec).items()} | {
            i: piece for piece, i in self._control.items()
        }
        self._byte_level = "ByteLevel" in json.dumps(spec.get("decoder"))
        self._tokenizer = Tokenizer.from_str(json.dumps(without_control_tokens(spec)))
        self.vocab_size = max(self._pieces) + 1

    @classmethod
    @lru_cache(maxsize=2)
    def from_folder(cls, folder: Path) -> Encoder:
        """Built once: it takes a tenth of a second. Raises OSError if there is no tokenizer.json."""
        return cls((folder / "tokenizer.json").read_text())

    @property
    def control_tokens(self) -> dict[str, int]:
        """Every added token, special or not, and its id."""
        return dict(self._control)

    def control(self, token: str) -> int:
        """The id of a control token. Raises KeyError."""
        return self._control[token]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; none of them is a control token's."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for; a single token may be part of a character."""
        piece: str = self._pieces.get(token_id, "")
        if piece in self._control:
            return piece.encode()
        if self._byte_level:
            table = byte_level_alphabet()
            return bytes(table[char] for char in piece)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("▁", " ").encode()


def vocabulary(spec: dict[str, Any]) -> dict[str, int]:
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, list):  # Unigram: [[piece, score], ...]
        return {piece: i for i, (piece, _) in enumerate(vocab)}
    assert isinstance(vocab, dict)
    return vocab


def without_control_tokens(spec: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer with neither added tokens nor their vocabulary entries, so that no path leads to them."""
    control = {token["content"] for token in spec["added_tokens"]}
    model = dict(spec["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {piece: i for piece, i in model["vocab"].items() if piece not in control}
    return spec | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None, "model": model}


@cache
def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, inverted: character to byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
