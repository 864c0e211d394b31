"""retrieval/vectors.py: the best chunks are the best, exactly, and nearly so where there are too many to look at all."""

from __future__ import annotations

import threading

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval import coarse, exact
from retrieval.types import Chunk, Range
from retrieval.vectors import Vectors
from tests.unit.retrieval.oracle import best, unit_vectors

DIMENSIONS = 16


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "SEGMENT_ROWS", 100)


def made(chance: np.random.Generator, count: int, first: int = 1) -> list[Chunk]:
    """Of one to five windows."""
    return [Chunk(first + n, "", unit_vectors(chance, int(chance.integers(1, 6)), DIMENSIONS)) for n in range(count)]


def query(chance: np.random.Generator) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = unit_vectors(chance, 1, DIMENSIONS)[0].astype(np.float32)
    return vector


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("allowed", [None, [(1, 1)], [(5, 60), (100, 180), (250, 251)], [(900, 950)]])
def test_search_is_exact(chance: np.random.Generator, allowed: list[Range] | None) -> None:
    """Through removals and over segments, it finds what looking at everything finds, with the same scores."""
    chunks = made(chance, 300)
    vectors = Vectors()
    vectors.apply((), chunks[:200])
    vectors.apply([(10, 20), (90, 130)], chunks[200:])
    left = {chunk.seq: chunk for chunk in chunks if not (10 <= chunk.seq <= 20 or 90 <= chunk.seq <= 130)}
    for _ in range(20):
        vector = query(chance)
        seqs, scores = vectors.best(vector, 7, allowed)
        wanted = best(left, vector, allowed)[:7]
        assert seqs.tolist() == [seq for _, seq in wanted]
        assert scores.tolist() == pytest.approx([score for score, _ in wanted], abs=1e-5)
        everywhere = {seq: score for score, seq in best(left, vector, None)}
        assert vectors.scores(vector, np.array([15, 200, 299])).tolist() == pytest.approx(
            [-np.inf, everywhere[200], everywhere[299]], abs=1e-5
        )


def test_a_chunk_counts_once(chance: np.random.Generator) -> None:
    """However many of its windows are best: k chunks are found if there are k."""
    vector = query(chance)
    many = Chunk(1, "", np.repeat(vector[None], 500, axis=0).astype(np.float16))
    vectors = Vectors()
    vectors.apply((), [many, *made(chance, 20, first=2)])
    seqs, _ = vectors.best(vector, 10, None)
    assert len(set(seqs.tolist())) == 10
    assert seqs[0] == 1


def test_memory_is_given_back(chance: np.random.Generator) -> None:
    """What is removed does not count any more, and is not found."""
    vectors = Vectors()
    vectors.apply((), made(chance, 50))
    vectors.apply([(1, 50)], ())
    assert (vectors.rows, vectors.size_bytes) == (0, 0)
    assert vectors.best(query(chance), 5, None)[0].size == 0


def test_vectors_of_another_model_are_refused(chance: np.random.Generator) -> None:
    """Vectors of another length change nothing."""
    vectors = Vectors()
    vectors.apply((), made(chance, 5))
    with pytest.raises(ValueError, match="8 numbers among those of 16"):
        vectors.apply([(1, 5)], [Chunk(6, "", unit_vectors(chance, 1, 8))])
    assert vectors.rows > 0


@pytest.fixture
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse, "CELLS", 16)
    monkeypatch.setattr(coarse, "PROBED", 8)


@pytest.mark.usefixtures("few_cells", "small_segments")
@pytest.mark.parametrize("allowed", [None, [(1, 900), (1000, 1200)]])
def test_candidates_hold_the_best(
    chance: np.random.Generator, monkeypatch: pytest.MonkeyPatch, allowed: list[Range] | None
) -> None:
    """Above the bound, nearly all of the best are found, with exact scores; and nothing that was removed."""
    monkeypatch.setattr("retrieval.vectors.FILTERED_ROWS", 10)
    chunks = made(chance, 1500)
    vectors = Vectors(exact_rows=1000)
    vectors.apply((), chunks[:1000])
    vectors.apply([(100, 300), (1200, 1200)], chunks[1000:])
    left = {chunk.seq: chunk for chunk in chunks if not 100 <= chunk.seq <= 300}
    shares = []
    for _ in range(50):
        vector = query(chance)
        seqs, scores = vectors.best(vector, 10, allowed)
        wanted = best(left, vector, allowed)
        everywhere = {seq: score for score, seq in wanted}
        assert scores.tolist() == pytest.approx([everywhere[seq] for seq in seqs.tolist()], abs=1e-5)
        shares.append(len(set(seqs.tolist()) & {seq for _, seq in wanted[:10]}) / 10)
    assert np.mean(shares) > 0.9


@pytest.mark.usefixtures("few_cells")
def test_filters_that_leave_little_are_exact(chance: np.random.Generator) -> None:
    """A narrow filter finds all that it leaves, even far from the query."""
    chunks = made(chance, 1000)
    vectors = Vectors(exact_rows=1000)
    vectors.apply((), chunks)
    allowed = [(n, n) for n in range(1, 1000, 97)]
    vector = query(chance)
    wanted = [seq for _, seq in best({chunk.seq: chunk for chunk in chunks}, vector, allowed)]
    assert vectors.best(vector, 50, allowed)[0].tolist() == wanted


@pytest.mark.usefixtures("few_cells")
def test_cells_come_and_go_with_size(chance: np.random.Generator) -> None:
    """A store that has grown or shrunk is searched as its size asks for: candidates cost memory, and nothing is left of
    them when they are not needed any more."""
    vectors = Vectors(exact_rows=900)
    sizes, right = [], 0
    chunks: dict[int, Chunk] = {}
    for first in range(1, 3000, 200):
        added = made(chance, 200, first)
        vectors.apply((), added)
        chunks |= {chunk.seq: chunk for chunk in added}
        sizes.append(vectors.size_bytes / vectors.rows)
        vector = query(chance)
        right += vectors.best(vector, 1, None)[0].tolist() == [best(chunks, vector, None)[0][1]]
    assert right >= 12
    assert sizes[0] < sizes[-1]
    vectors.apply([(1, 2900)], ())
    assert vectors.size_bytes / vectors.rows == sizes[0]


def test_one_search_has_one_core(chance: np.random.Generator) -> None:
    """In whatever thread it runs: OpenMP's own choice would be all cores."""
    vectors, seen = Vectors(), []
    vectors.apply((), made(chance, 10))

    def work() -> None:
        vectors.best(query(chance), 1, None)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]
