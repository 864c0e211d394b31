"""The embedding model alone, as Triton runs it: batches from standard input, vectors to standard output, until the end of
input. Needs .venv-engine.

Each is one .npy behind its length (8 bytes): first int32, (n, longest), rows of ids with control tokens, padded with -1; the
answer is float32, (n, dim).
"""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np

LENGTH = struct.Struct("<q")


def main(folder: Path) -> None:
    from embedder_backend.embedder import Embedder

    embedder = Embedder(folder, threads=1, device="cpu")
    given, answer = sys.stdin.buffer, sys.stdout.buffer
    while header := given.read(LENGTH.size):
        table = np.load(io.BytesIO(given.read(*LENGTH.unpack(header))))
        rows = [row[row >= 0] for row in table]
        embedder.check(rows)
        output = io.BytesIO()
        np.save(output, embedder.embed(rows))
        answer.write(LENGTH.pack(output.tell()) + output.getvalue())
        answer.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
