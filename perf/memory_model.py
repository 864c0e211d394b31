"""The embedding model in a process of its own, asked batch after batch (perf/memory_embed.py)."""

from __future__ import annotations

import asyncio
import io
import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frontend import settings

LENGTH = struct.Struct("<q")


class Model:
    """Implements frontend.domain.ports.Embedder."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._one_at_a_time = asyncio.Lock()

    async def embed(self, batch: Sequence[Sequence[int]], *, urgent: bool) -> NDArray[np.float32]:
        table = np.full((len(batch), max(map(len, batch))), -1, np.int32)
        for line, row in enumerate(batch):
            table[line, : len(row)] = row
        given = io.BytesIO()
        np.save(given, table)
        async with self._one_at_a_time:
            self._stdin.write(LENGTH.pack(given.tell()) + given.getvalue())
            await self._stdin.drain()
            (length,) = LENGTH.unpack(await self._stdout.readexactly(LENGTH.size))
            vectors: NDArray[np.float32] = np.load(io.BytesIO(await self._stdout.readexactly(length)))
        return vectors


@asynccontextmanager
async def embedding_model(folder: Path, environment: Path) -> AsyncIterator[Model]:
    process = await asyncio.create_subprocess_exec(
        environment / "bin/python",
        Path(__file__).with_name("memory_embed.py"),
        folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(settings.ROOT / "model_repository/embedder/1"), "HF_HUB_OFFLINE": "1"},
    )
    try:
        yield Model(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
