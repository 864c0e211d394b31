"""Texts to vectors: sentence-transformers, fed with checked token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from .batching import batches
from .errors import InvalidArgument
from .wire import Tokens


class Embedder:
    """Not thread-safe: Triton calls one instance from one thread."""

    def __init__(self, folder: Path, *, threads: int, device: str) -> None:
        """`device`: cpu or cuda:N. Raises what sentence-transformers raises if `folder` is not one of its models."""
        torch.set_num_threads(threads)
        logging.disable_progress_bar()
        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self._device = device
        self._tokenizer = self._model.tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()  # the file has both fixed at 128
        self._tokenizer.no_padding()
        self._vocab_size = int(self._tokenizer.get_vocab_size())
        limit = self._model.max_seq_length
        assert limit is not None
        self.max_tokens = int(limit)
        """Tokens of one text that the model reads, control tokens included."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids with the model's control tokens, uncut."""
        return [np.asarray(self._tokenizer.encode(text).ids, np.int32) for text in texts]

    def check(self, rows: Sequence[Tokens]) -> None:
        """Raises InvalidArgument for a row that is too long, or has an id that is no token."""
        for number, row in enumerate(rows):
            if row.size > self.max_tokens:
                raise InvalidArgument(f"row {number} has {row.size} tokens, the model reads at most {self.max_tokens}")
            if row.min() < 0 or row.max() >= self._vocab_size:
                raise InvalidArgument(f"row {number} has an id that is not from 0 to {self._vocab_size - 1}")

    def embed(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        """(n, dim) float32, L2-normalised, in the order of `rows`, which have been checked."""
        vectors: dict[int, NDArray[np.float32]] = {}
        with torch.inference_mode():
            for batch in batches([row.size for row in rows]):
                output = self._forward([rows[index] for index in batch])
                vectors.update(zip(batch, output, strict=True))
        return np.stack([vectors[index] for index in range(len(rows))])

    def _forward(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        ids = np.zeros((len(rows), max(row.size for row in rows)), np.int64)
        mask = np.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, : row.size] = row
            mask[line, : row.size] = 1
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        output = self._model({name: tensor.to(self._device) for name, tensor in features.items()})
        vectors: NDArray[np.float32] = output["sentence_embedding"].float().cpu().numpy()
        return vectors
