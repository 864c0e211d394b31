"""A file to the chunks that a store keeps: read, cut, embedded, in memory that does not grow with what is in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from frontend.domain.documents import IngestJob, NewChunk
from frontend.domain.errors import ParseFailed, Timeout, Unavailable
from frontend.domain.ports import Parser
from frontend.domain.storage import Database
from frontend.services.embeddings import EmbeddingService
from retrieval.chunking import Piece, Tokens, cut

STAGES = Histogram(
    "hermes2_ingest_seconds",
    "A file on its way into a store, by its stages.",
    ["stage"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 120, 600, 3600),
)
WINDOWS = Counter("hermes2_ingest_windows", "Windows of files that were embedded.")
SECTION_CHARS, CHARS_PER_TOKEN = 20_000, 24
"""So much of a text is tokenised at a time, and more only for chunks of which it would not hold several: the tokenizer keeps
the interpreter while it works, 6 ms for 20,000 characters, and the tokens of 20 million would take 1.5 GB."""
GROUP_WINDOWS = 256
"""So many are embedded before others are cut: 16 batches, so that the embedder seldom waits for the next one."""
MOST_CHUNKS = 50_000
"""Of one file: they are published in one transaction, in 6 s with SQLite."""
FIRST_PAUSE_S, TRIES = 0.5, 6
"""The embedder may be away or busy for 15 seconds before what was made of a file is given up."""


class Gone(Exception):
    """The job is not there any more, or not to be done any more."""


class FileChunks:
    def __init__(
        self,
        database: Database,
        embeddings: EmbeddingService,
        parser: Parser,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._database = database
        self._embeddings = embeddings
        self._parser = parser
        self._sleep = sleep

    async def make(self, job: IngestJob) -> list[NewChunk]:
        """Raises ParseFailed, Gone, NotFound, OSError, and Unavailable or Timeout if the embedder stays away."""
        text = await self._text(job)
        chunks: list[NewChunk] = []
        groups = grouped(self._sections(text, job))
        while (pieces := await asyncio.to_thread(next, groups, None)) is not None:
            await self._check(job)
            with STAGES.labels("embed").time():
                vectors = await self._vectors([window for piece in pieces for window in piece.windows])
            chunks += await asyncio.to_thread(new_chunks, pieces, vectors)
            if len(chunks) > MOST_CHUNKS:
                raise ParseFailed(
                    f"The file makes more than {MOST_CHUNKS} chunks. Please split it, or use larger chunks."
                )
        if not chunks:
            raise ParseFailed("No text was found in the file.")
        return chunks

    async def _text(self, job: IngestJob) -> str:
        """The file has no name on this disk, and is gone with this process."""
        with tempfile.TemporaryFile(prefix="hermes2-ingest-") as file:
            with STAGES.labels("read").time():
                await self._write(job, file)
            with STAGES.labels("parse").time():
                return await self._parser.parse(job.file.filename, Path(f"/proc/self/fd/{file.fileno()}"))

    async def _write(self, job: IngestJob, file: IO[bytes]) -> None:
        n = 0
        while True:
            async with self._database.reading() as uow:
                body = await uow.files.piece(job.tenant, job.file.id, n)
            if body is None:
                break
            await asyncio.to_thread(file.write, body)
            n += 1
        await asyncio.to_thread(file.flush)

    def _sections(self, text: str, job: IngestJob) -> Iterator[list[Piece]]:
        cutter = partial(
            cut,
            max_tokens=job.chunking.max_chunk_tokens,
            overlap=job.chunking.chunk_overlap_tokens,
            window_tokens=job.embedding.window_tokens,
        )
        section_chars = max(SECTION_CHARS, job.chunking.max_chunk_tokens * CHARS_PER_TOKEN)
        return sections(text, self._embeddings.tokens, cutter, section_chars)

    async def _check(self, job: IngestJob) -> None:
        """Raises Gone if the file was cancelled or taken out of the store meanwhile: embedding it is the dear part."""
        async with self._database.reading() as uow:
            found = await uow.store_files.get(job.tenant, job.store_id, job.file.id)
        if found.status != "in_progress":
            raise Gone

    async def _vectors(self, windows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Behind everything that somebody waits for. Raises Unavailable, Timeout after some tries."""
        for attempt in range(TRIES):
            try:
                vectors = await self._embeddings.vectors(windows, urgent=False)
            except (Unavailable, Timeout) as exc:
                if attempt == TRIES - 1:
                    raise
                await self._sleep(max(FIRST_PAUSE_S * 2**attempt, getattr(exc, "retry_after_s", 0.0)))
            else:
                WINDOWS.inc(len(windows))
                return vectors
        raise AssertionError


def sections(
    text: str,
    tokens: Callable[[str], Tokens],
    cutter: Callable[[str, Tokens], list[Piece]],
    section_chars: int,
) -> Iterator[list[Piece]]:
    """The chunks of a text, as many at a time as stand in `section_chars` of it; blocks.

    A section's last chunk ends where the section does, and not where it should: the next one begins with its beginning.
    """
    start = 0
    while start < len(text):
        end = section_end(text, start, section_chars)
        with STAGES.labels("cut").time():
            pieces = cutter(text[start:end], tokens(text[start:end]))
        following = end
        if end < len(text) and len(pieces) > 1:
            following = start + pieces.pop().start
        yield [msgspec.structs.replace(piece, start=start + piece.start, end=start + piece.end) for piece in pieces]
        start = following


def grouped(found: Iterator[list[Piece]]) -> Iterator[list[Piece]]:
    """Several sections' together, none empty; blocks."""
    group: list[Piece] = []
    for pieces in found:
        group += pieces
        if sum(len(piece.windows) for piece in group) >= GROUP_WINDOWS:
            yield group
            group = []
    if group:
        yield group


def section_end(text: str, start: int, section_chars: int) -> int:
    """Between two words, if there are any in its second half."""
    end = start + section_chars
    if end >= len(text):
        return len(text)
    middle = start + section_chars // 2
    return max(text.rfind(" ", middle, end), text.rfind("\n", middle, end)) + 1 or end


def new_chunks(pieces: Sequence[Piece], vectors: NDArray[np.float32]) -> list[NewChunk]:
    """`vectors`: (windows, dim) of all windows of all pieces, in their order."""
    ends = np.cumsum([len(piece.windows) for piece in pieces])[:-1]
    return [
        NewChunk(text=piece.text, start=piece.start, end=piece.end, vectors=part)
        for piece, part in zip(pieces, np.split(vectors.astype(np.float16), ends), strict=True)
    ]
