"""The tensors of `embedder`. Knows names, types and shapes, not Triton.

A request has n rows: texts, or token ids as the model reads them, with its control tokens ([CLS] and [SEP]) in place.
config.pbtxt declares the same tables, and a contract test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidArgument

Tensors = Mapping[str, NDArray[np.generic]]
Tokens = NDArray[np.int32]
"""The token ids of one row: (tokens,) int32."""

INPUTS: Mapping[str, str] = {
    "text": "TYPE_STRING",
    "input_ids": "TYPE_INT32",
    "num_tokens": "TYPE_INT32",
}
OUTPUTS: Mapping[str, str] = {
    "embedding": "TYPE_FP32",
    "num_input_tokens": "TYPE_UINT32",
}


def texts(inputs: Tensors) -> list[str] | None:
    """The n texts of `text` (n, 1), or None: then the request has token ids. Raises InvalidArgument."""
    if ("text" in inputs) == ("input_ids" in inputs):
        raise InvalidArgument("send either text or input_ids")
    if "text" not in inputs:
        return None
    values: list[bytes] = inputs["text"].ravel().tolist()
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"text: not UTF-8 ({exc.reason} at byte {exc.start})") from exc


def token_rows(inputs: Tensors) -> list[Tokens]:
    """The rows of `input_ids` (n, L), each cut to its count in `num_tokens` (n, 1). Raises InvalidArgument."""
    padded, counts = inputs["input_ids"], inputs.get("num_tokens")
    if counts is None:
        raise InvalidArgument("num_tokens: is needed beside input_ids")
    if counts.size != len(padded) or padded.ndim != 2:
        raise InvalidArgument(f"num_tokens: {counts.size} counts for {len(padded)} rows of input_ids")
    rows: list[Tokens] = []
    for row, count in zip(padded, counts.ravel().tolist(), strict=True):
        if not 1 <= count <= row.size:
            raise InvalidArgument(f"num_tokens: {count} of {row.size} columns of input_ids")
        rows.append(row[:count].astype(np.int32))
    return rows


def encode(vectors: NDArray[np.float32], rows: Sequence[Tokens]) -> dict[str, NDArray[np.generic]]:
    """The tensors of a response. `vectors`: (n, dim) float32, L2-normalised."""
    counts = np.asarray([[row.size] for row in rows], np.uint32)
    return {"embedding": vectors, "num_input_tokens": counts}
