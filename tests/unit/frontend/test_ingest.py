"""Ingest over SQLite and the real parser: what becomes of a file, of whatever kind, whoever fails meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from structlog.testing import capture_logs

from frontend.db.database import SqlDatabase
from frontend.db.engines import sqlite_url
from frontend.domain.documents import Chunking, FoundChunk
from frontend.domain.errors import Internal, ParseFailed, Unavailable
from frontend.services.embeddings import EmbeddingService
from frontend.services.file_chunks import TRIES, sections
from frontend.services.process import where
from retrieval.chunking import Tokens, cut
from tests.fakes.embedder import FakeEmbedder
from tests.support import documents
from tests.support.database import opened
from tests.support.ingest import embeddings_of, ended, service_of

ROOT = Path(__file__).parents[3]
WORDS = " ".join(f"word{n}" for n in range(4000))
SMALL = Chunking(max_chunk_tokens=100, chunk_overlap_tokens=50)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
async def embeddings(
    sqlite_database: SqlDatabase, minilm: Path, embedder: FakeEmbedder, threads: ThreadPoolExecutor
) -> EmbeddingService:
    """With vs_1 of tenant a, whose vectors are its."""
    service = embeddings_of(minilm, embedder, threads)
    await documents.add_store(sqlite_database, embedding=service.pin)
    return service


async def add(database: SqlDatabase, file_id: str, body: bytes, filename: str = "a.txt", **fields: Any) -> None:
    """Uploaded in two pieces, and put into vs_1."""
    async with database.writing() as uow:
        new = documents.file(file_id, filename=filename)
        await uow.files.begin("a", new, most_files=100, most_bytes=10**9)
        half = len(body) // 2
        await uow.files.add_piece("a", file_id, 0, body[:half])
        await uow.files.add_piece("a", file_id, 1, body[half:])
        await uow.files.publish("a", file_id, len(body), most_bytes=10**9)
    await documents.put_in(database, file_id, **fields)


async def chunks_of(database: SqlDatabase, file_id: str) -> list[FoundChunk]:
    async with database.reading() as uow:
        return await uow.chunks.of_file("a", "vs_1", file_id, 0, 10_000)


def recorded(pauses: list[float]) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    return sleep


class Words:
    """A parser in this process, or one that fails."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.running = 0
        self.most_running = 0
        self._fails = fails

    async def parse(self, filename: str, path: Path) -> str:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        if self._fails is not None:
            raise self._fails
        return await asyncio.to_thread(path.read_text)


class TestFiles:
    async def test_a_text(
        self, sqlite_database: SqlDatabase, embeddings: EmbeddingService, embedder: FakeEmbedder
    ) -> None:
        """Its chunks are there at once with `completed`, in one range of the log, each exactly where it says it stands."""
        await add(sqlite_database, "file_1", WORDS.encode(), chunking=SMALL)
        async with service_of(sqlite_database, embeddings).running():
            (found,) = await ended(sqlite_database, "file_1")
        chunks = await chunks_of(sqlite_database, "file_1")
        assert (found.status, found.error) == ("completed", None)
        assert [chunk.seq for chunk in chunks] == list(range(1, len(chunks) + 1))
        assert all(chunk.text == WORDS[chunk.start : chunk.end] for chunk in chunks)
        assert (chunks[0].start, chunks[-1].end) == (0, len(WORDS))
        assert found.usage_bytes == sum(len(chunk.text) + 2 * 384 for chunk in chunks)
        store = await documents.read_store(sqlite_database)
        assert (store.head, store.counts.completed) == (len(chunks), 1)
        assert not any(embedder.urgent)

    async def test_kinds_and_failures_side_by_side(
        self, sqlite_database: SqlDatabase, embeddings: EmbeddingService
    ) -> None:
        """Broken files fail with their reasons, and the good ones between them are put in."""
        bodies = {
            "file_1": (b"%PDF-1.7 broken", "a.pdf", "invalid_file"),
            "file_2": (b"The gate opens at seven.", "a.md", None),
            "file_3": (b"", "a.txt", "invalid_file"),
            "file_4": (b"\x7fELF" + bytes(100), "program", "unsupported_file"),
            "file_5": (b'{"gate": "seven"}', "a.json", None),
        }
        for file_id, (body, filename, _) in bodies.items():
            await add(sqlite_database, file_id, body, filename)
        async with service_of(sqlite_database, embeddings).running():
            found = await ended(sqlite_database, *bodies)
        assert [each.error and each.error.code for each in found] == [code for _, _, code in bodies.values()]
        assert all(len(each.error.message) > 10 for each in found if each.error)
        assert (await documents.read_store(sqlite_database)).counts.completed == 2

    async def test_only_so_many_at_once(self, sqlite_database: SqlDatabase, embeddings: EmbeddingService) -> None:
        """`workers` bounds how many files are in work; `wake` makes it look at once."""
        parser = Words()
        service = service_of(sqlite_database, embeddings, parser=parser, workers=2)
        async with service.running():
            for n in range(6):
                await add(sqlite_database, f"file_{n}", b"some words")
            service.wake()
            await ended(sqlite_database, *(f"file_{n}" for n in range(6)))
        assert parser.most_running == 2

    async def test_a_text_of_spaces(self, sqlite_database: SqlDatabase, embeddings: EmbeddingService) -> None:
        """Whatever the parser makes of it: a file without a word has failed."""
        await add(sqlite_database, "file_1", b" " * 300_000)
        async with service_of(sqlite_database, embeddings, parser=Words()).running():
            (found,) = await ended(sqlite_database, "file_1")
        assert found.error is not None
        assert found.error.code == "invalid_file"

    async def test_a_defect_of_ours(self, sqlite_database: SqlDatabase, embeddings: EmbeddingService) -> None:
        """What nobody has foreseen fails the file, and says nothing of itself to others."""
        await add(sqlite_database, "file_1", b"words")
        with capture_logs() as logs:
            async with service_of(sqlite_database, embeddings, parser=Words(KeyError("secret"))).running():
                (found,) = await ended(sqlite_database, "file_1")
        assert found.error is not None
        assert (found.error.code, "secret" in found.error.message) == ("server_error", False)
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["ingest_defect"]


class FlakyEmbedder(FakeEmbedder):
    """Away for the first `times`."""

    def __init__(self, times: int, error: Exception | None = None) -> None:
        super().__init__()
        self.times = times
        self.away = error or Unavailable("The embedder is away.")

    async def embed(self, batch: object, *, urgent: bool) -> NDArray[np.float32]:
        if self.times > 0:
            self.times -= 1
            raise self.away
        return await super().embed(batch, urgent=urgent)  # type: ignore[arg-type]


class TestTheEmbedderIsAway:
    async def test_for_a_while(self, sqlite_database: SqlDatabase, minilm: Path, threads: ThreadPoolExecutor) -> None:
        """It is asked again, after longer and longer pauses; the file is neither failed nor read anew."""
        embeddings = embeddings_of(minilm, FlakyEmbedder(3), threads)
        await documents.add_store(sqlite_database, embedding=embeddings.pin)
        await add(sqlite_database, "file_1", b"some words")
        pauses: list[float] = []
        async with service_of(sqlite_database, embeddings, sleep=recorded(pauses)).running():
            (found,) = await ended(sqlite_database, "file_1")
        assert (found.status, pauses) == ("completed", [1.0, 1.0, 2.0])

    async def test_for_longer(self, sqlite_database: SqlDatabase, minilm: Path, threads: ThreadPoolExecutor) -> None:
        """The file is given back, and begun anew later, as often as it takes; no attempt is counted."""
        embeddings = embeddings_of(minilm, FlakyEmbedder(TRIES), threads)
        await documents.add_store(sqlite_database, embedding=embeddings.pin)
        await add(sqlite_database, "file_1", b"some words")
        with capture_logs() as logs:
            async with service_of(sqlite_database, embeddings, sleep=recorded([])).running():
                (found,) = await ended(sqlite_database, "file_1")
        told = [(log["outcome"], log["attempt"]) for log in logs if log["event"] == "ingested"]
        assert (found.status, told) == ("completed", [("released", 1), ("completed", 1)])

    async def test_what_it_refuses(
        self, sqlite_database: SqlDatabase, minilm: Path, threads: ThreadPoolExecutor
    ) -> None:
        """An error that trying again would not mend fails the file."""
        embeddings = embeddings_of(minilm, FlakyEmbedder(1, Internal("broken")), threads)
        await documents.add_store(sqlite_database, embedding=embeddings.pin)
        await add(sqlite_database, "file_1", b"some words")
        with capture_logs():
            async with service_of(sqlite_database, embeddings).running():
                (found,) = await ended(sqlite_database, "file_1")
        assert found.error is not None
        assert found.error.code == "server_error"


class TestEnds:
    async def test_shutdown(self, sqlite_database: SqlDatabase, minilm: Path, threads: ThreadPoolExecutor) -> None:
        """What has begun is given back at once, and the next process does all of it."""
        hold = asyncio.Event()
        embedder = FakeEmbedder(hold=hold)
        embeddings = embeddings_of(minilm, embedder, threads)
        await documents.add_store(sqlite_database, embedding=embeddings.pin)
        await add(sqlite_database, "file_1", b"some words")
        async with service_of(sqlite_database, embeddings).running():
            while not embedder.running:
                await asyncio.sleep(0.01)
        (job,) = await documents.claim(sqlite_database)
        assert job.attempt == 1
        async with sqlite_database.writing() as uow:
            await uow.store_files.release(job)
        hold.set()
        async with service_of(sqlite_database, embeddings).running():
            (found,) = await ended(sqlite_database, "file_1")
        assert found.status == "completed"

    async def test_taken_out_meanwhile(
        self, sqlite_database: SqlDatabase, minilm: Path, threads: ThreadPoolExecutor
    ) -> None:
        """Nothing of a file is published that was removed while it was embedded; others go on."""
        hold = asyncio.Event()
        embedder = FakeEmbedder(hold=hold)
        embeddings = embeddings_of(minilm, embedder, threads)
        await documents.add_store(sqlite_database, embedding=embeddings.pin)
        await add(sqlite_database, "file_1", b"some words")
        await add(sqlite_database, "file_2", b"more words")
        async with service_of(sqlite_database, embeddings).running():
            while embedder.running < 2:
                await asyncio.sleep(0.01)
            async with sqlite_database.writing() as uow:
                await uow.store_files.remove("a", "vs_1", "file_1")
            hold.set()
            await ended(sqlite_database, "file_2")
        _, added, _ = documents.told(await documents.read_delta(sqlite_database, 0))
        assert [text for _, text in added] == ["more words"]

    async def test_too_many_deaths(self, sqlite_database: SqlDatabase, embeddings: EmbeddingService) -> None:
        """A file over which its process has died `attempts` times is not read again."""
        await add(sqlite_database, "file_1", b"some words")
        for n in range(3):
            await documents.claim(sqlite_database, owner=dead_process(n))
            async with sqlite_database.writing() as uow:
                await uow.store_files.release_all(dead_process(n))
        async with service_of(sqlite_database, embeddings, parser=Words(ParseFailed("was read"))).running():
            (found,) = await ended(sqlite_database, "file_1")
        assert found.error is not None
        assert (found.error.code, "died" in found.error.message) == ("server_error", True)

    async def test_leases_are_kept(
        self, sqlite_database: SqlDatabase, minilm: Path, threads: ThreadPoolExecutor
    ) -> None:
        """A file that takes longer than a lease stays its process's."""
        hold = asyncio.Event()
        embedder = FakeEmbedder(hold=hold)
        embeddings = embeddings_of(minilm, embedder, threads)
        await documents.add_store(sqlite_database, embedding=embeddings.pin)
        await add(sqlite_database, "file_1", b"some words")
        async with service_of(sqlite_database, embeddings, lease_s=0.3).running():
            while not embedder.running:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.6)
            async with sqlite_database.writing() as uow:
                others = await uow.store_files.claim("another", time.time(), 10**12, 5)
            hold.set()
            (found,) = await ended(sqlite_database, "file_1")
        assert (others, found.status) == ([], "completed")


def dead_process(n: int) -> str:
    """A name of a process of this machine that has never been."""
    return f"{where()}/1/{n}"


CRASHER = """
import asyncio, json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.fakes.embedder import FakeEmbedder
from tests.support.database import opened
from tests.support.ingest import embeddings_of, service_of

class Stuck(FakeEmbedder):
    async def embed(self, batch, *, urgent):
        if len(self.batches) == 2:
            print("stuck", flush=True)
            await asyncio.Event().wait()
        return await super().embed(batch, urgent=urgent)

async def main(url, minilm):
    with ThreadPoolExecutor(1) as threads:
        async with opened(url) as database, service_of(
            database, embeddings_of(Path(minilm), Stuck(), threads), workers=1
        ).running():
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_9_in_the_middle(tmp_path: Path, minilm: Path, threads: ThreadPoolExecutor) -> None:
    """What the killed process had published stays as it is; another one goes on with the file in which it died, at once."""
    url = sqlite_url(tmp_path / "hermes2.db")
    names = [f"file_{n}" for n in range(5)]
    embeddings = embeddings_of(minilm, FakeEmbedder(), threads)
    async with opened(url) as database:
        await documents.add_store(database, embedding=embeddings.pin)
        for name in names:
            await add(database, name, f"The words of {name}.".encode())
    arguments = [sys.executable, "-c", CRASHER, url, str(minilm)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE) as first:  # noqa: ASYNC220
        assert first.stdout is not None
        try:
            while (line := await asyncio.to_thread(first.stdout.readline)) != b"stuck\n":
                assert line, "it ended by itself"
        finally:
            first.send_signal(signal.SIGKILL)
    async with opened(url) as database:
        before = {name: await chunks_of(database, name) for name in names}
        assert sum(bool(chunks) for chunks in before.values()) == 2
        with capture_logs() as logs:
            async with service_of(database, embeddings, lease_s=3600).running():
                found = await ended(database, *names)
        assert {each.status for each in found} == {"completed"}
        after = {name: await chunks_of(database, name) for name in names}
        assert all(after[name] == before[name] for name in names if before[name])
        assert sorted(chunk.seq for chunks in after.values() for chunk in chunks) == [1, 2, 3, 4, 5]
        assert {chunk.text for chunks in after.values() for chunk in chunks} == {
            f"The words of {name}." for name in names
        }
    attempts = sorted(log["attempt"] for log in logs if log["event"] == "ingested")
    assert attempts == [1, 1, 2], json.dumps(logs, default=str)


def by_words(text: str) -> Tokens:
    """A token is a word."""
    offsets, place = [], 0
    for word in text.split():
        start = text.index(word, place)
        place = start + len(word)
        offsets.append((start, place))
    return Tokens(list(range(len(offsets))), offsets)


@given(
    words=st.lists(st.text("abc", min_size=1, max_size=9), max_size=150),
    overlap=st.integers(0, 4),
    section_chars=st.integers(60, 300),
)
def test_sections_make_the_same_chunks(words: list[str], overlap: int, section_chars: int) -> None:
    """A text that is cut piece by piece has the chunks that it has when it is cut as a whole."""
    text = " ".join(words)
    cutter = partial(cut, max_tokens=5, overlap=overlap, window_tokens=4)
    found = [piece for some in sections(text, by_words, cutter, section_chars) for piece in some]
    whole = cutter(text, by_words(text))
    assert [(piece.text, piece.start, piece.end) for piece in found] == [
        (piece.text, piece.start, piece.end) for piece in whole
    ]


@given(text=st.text("ab \n", max_size=400), section_chars=st.integers(2, 40))
def test_sections_always_come_to_the_end(text: str, section_chars: int) -> None:
    """However long its words and its spaces are, no word of a text is lost, and every chunk is where it says it is."""
    cutter = partial(cut, max_tokens=3, overlap=1, window_tokens=2)
    found = [piece for some in sections(text, by_words, cutter, section_chars) for piece in some]
    assert all(piece.text == text[piece.start : piece.end] for piece in found)
    covered = {place for piece in found for place in range(piece.start, piece.end)}
    assert all(place in covered for place, character in enumerate(text) if not character.isspace())
