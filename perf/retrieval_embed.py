"""The embedding model alone, as Triton runs it: windows from standard input, vectors to standard output. Needs .venv-engine."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

BATCH = 32


def main(folder: Path) -> None:
    """Input: an .npz of `ids` (all windows, one behind the other, with control tokens) and `lengths`. Output: an .npy,
    (n, dim) float32."""
    from embedder_backend.embedder import Embedder

    given = np.load(io.BytesIO(sys.stdin.buffer.read()))
    rows = np.split(given["ids"], given["lengths"].cumsum()[:-1])
    embedder = Embedder(folder, threads=1, device="cpu")
    embedder.check(rows)
    order = np.argsort(given["lengths"], kind="stable")
    vectors = [embedder.embed([rows[n] for n in order[at : at + BATCH]]) for at in range(0, len(rows), BATCH)]
    output = io.BytesIO()
    np.save(output, np.concatenate(vectors)[np.argsort(order)])
    sys.stdout.buffer.write(output.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
