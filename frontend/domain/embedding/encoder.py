"""Text to the token ids of the embedding model, uncut, and such that no text becomes a control token.

The tokenizer is built without its added tokens, so that "[SEP]" in a text is five characters; the control tokens around
a text are placed by code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from retrieval.chunking import Tokens

PROBE_TEXT = "a"


class EmbeddingEncoder:
    """Built from a model's tokenizer.json. Immutable; may be used in threads."""

    def __init__(self, tokenizer_json: str) -> None:
        spec: dict[str, Any] = json.loads(tokenizer_json)
        spec |= {"added_tokens": [], "truncation": None, "padding": None}
        self._tokenizer = Tokenizer.from_str(json.dumps(spec))
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        whole, text = self._tokenizer.encode(PROBE_TEXT).ids, self.encode(PROBE_TEXT)
        start = whole.index(text[0])
        self._before, self._after = whole[:start], whole[start + len(text) :]
        self._control = frozenset([*self._before, *self._after])

    @classmethod
    def from_folder(cls, folder: Path) -> EmbeddingEncoder:
        """Raises OSError if there is no tokenizer.json."""
        return cls((folder / "tokenizer.json").read_text())

    @property
    def num_control_tokens(self) -> int:
        """Tokens that `frame` adds."""
        return len(self._before) + len(self._after)

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def tokens(self, text: str) -> Tokens:
        """Ids of the text alone, each with the place of its characters."""
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)  # `encode` keeps the GIL
        return Tokens(encoding.ids, encoding.offsets)

    def frame(self, ids: Sequence[int]) -> list[int]:
        """The same with the control tokens that the model expects around a text."""
        return [*self._before, *ids, *self._after]

    def first_foreign(self, ids: Sequence[int]) -> int | None:
        """The first id that no text has: outside the vocabulary, or a control token that `frame` places. `ids` has some."""
        if min(ids) >= 0 and max(ids) < self.vocab_size and self._control.isdisjoint(ids):
            return None
        return next(i for i in ids if not 0 <= i < self.vocab_size or i in self._control)
