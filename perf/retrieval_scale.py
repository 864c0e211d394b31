"""What search costs: clustered synthetic vectors, a thousand to a million in one store, one query at a time on one core.

dense     vectors alone: time of a search, memory, time to build, what of the exact ten best is among the ten found
filtered  the same where a filter leaves a part of the store
hybrid    vectors and words of chunks of real length; texts are made of words as frequent as in English (Zipf)
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from perf import machine
from retrieval.hybrid import HybridIndex
from retrieval.types import Chunk, Delta, Query, Range
from retrieval.vectors import Vectors

DIMENSIONS = 384
CLUSTERS = 2000
SPREAD = 0.8
"""Of a cluster: the length of what is added to its centre, whose own is 1. Neighbours have cosines of about .6."""
PAGE = 4096
"""Chunks of one delta, as the service reads a log."""
QUERIES = 300
COUNTS = (1_000, 10_000, 100_000, 1_000_000)
SHARES = (0.1, 0.01, 0.001)
FILES = 50
"""A filter allows so many ranges."""
TOP = 10
HYBRID_CHUNKS = 100_000
WINDOWS = 4
"""Of a chunk of 800 tokens."""
CHUNK_WORDS = 550
QUERY_WORDS = 8
VOCABULARY = 100_000
STOP_RANKS = 100

Rows = NDArray[np.float16]
Q = TypeVar("Q")
R = TypeVar("R")


class Timing(msgspec.Struct, frozen=True):
    p50_ms: float
    p99_ms: float
    """As a clock on the wall has it, with what others on the machine do."""
    own_p99_ms: float
    """Of the core's own time: what it is on a machine that does nothing else."""
    recall: float | None = None
    """Of the exact TOP best, the share that was found. None: not compared."""


class Size(msgspec.Struct, frozen=True):
    """One store of one size."""

    rows: int
    dense: Timing
    filtered: Sequence[Timing]
    """By SHARES."""
    bytes_per_vector: float
    rss_per_vector: float
    """What the process grew by, vectors that it was given not counted."""
    build_s: float
    """Of the core's own time."""


class Hybrid(msgspec.Struct, frozen=True):
    chunks: int
    timing: Timing
    words: Timing
    """Of that, full text alone."""
    index_bytes: int
    text_bytes: int
    build_s: float


class Found(msgspec.Struct, frozen=True):
    sizes: Sequence[Size]
    hybrid: Hybrid


def measure(most: int, progress: Callable[[str], None]) -> Found:
    """`most`: of vectors in one store."""
    world = World()
    sizes = []
    for count in [count for count in COUNTS if count <= most]:
        sizes.append(dense(world, count))
        progress(f"{count} vectors: {sizes[-1].dense}")
        gc.collect()
    hybrid = with_words(world, min(most, HYBRID_CHUNKS))
    progress(f"hybrid: {hybrid.timing}")
    return Found(sizes, hybrid)


class World:
    """Where vectors and texts come from; the same in each run."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(7)
        self._centres = unit(self._chance.standard_normal((CLUSTERS, DIMENSIONS), np.float32))
        ranks = np.arange(1, VOCABULARY + 1)
        self._likely = (1 / ranks).cumsum() / (1 / ranks).sum()

    def vectors(self, count: int) -> NDArray[np.float32]:
        """(count, DIMENSIONS), L2-normalised."""
        noise = self._chance.standard_normal((count, DIMENSIONS), np.float32) * np.float32(SPREAD / DIMENSIONS**0.5)
        return unit(self._centres[self._chance.integers(0, CLUSTERS, count)] + noise)

    def text(self, words: int) -> str:
        return " ".join(f"w{rank}" for rank in self._ranks(words))

    def question(self, words: int) -> str:
        """Of words that are no stop words: those are left out of a query."""
        telling = [rank for rank in self._ranks(10 * words) if rank >= STOP_RANKS]
        return " ".join(f"w{rank}" for rank in telling[:words])

    def _ranks(self, count: int) -> list[int]:
        ranks: list[int] = self._likely.searchsorted(self._chance.random(count)).tolist()
        return ranks

    def ranges(self, count: int, share: float) -> list[Range]:
        """FILES ranges of as many numbers from 1 to `count`, that are `share` of them; fewer where those would be empty."""
        files = max(1, min(FILES, round(count * share)))
        length = max(1, round(count * share / files))
        return [(start, start + length - 1) for start in np.linspace(1, count - length, files).astype(int).tolist()]


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def dense(world: World, count: int) -> Size:
    """One vector a chunk: the rows are the store's."""
    rows = np.concatenate([world.vectors(min(PAGE, count - at)).astype(np.float16) for at in range(0, count, PAGE)])
    queries = world.vectors(QUERIES)
    before, started = rss(), time.thread_time()
    vectors = Vectors()
    for at in range(0, count, PAGE):
        vectors.apply((), [Chunk(seq, "", rows[seq - 1 : seq]) for seq in range(at + 1, min(at + PAGE, count) + 1)])
    build_s, grown = time.thread_time() - started, rss() - before

    def searched(allowed: Sequence[Range] | None) -> Timing:
        results = list(timed(lambda query: vectors.best(query, TOP, allowed)[0], queries))
        shares = [
            len(wanted.intersection(found.tolist())) / TOP
            for wanted, (found, _) in zip(exact(rows, queries, allowed), results, strict=True)
        ]
        return timing([taken for _, taken in results], float(np.mean(shares)))

    searches = [searched(world.ranges(count, share)) for share in SHARES if count * share >= TOP]
    return Size(count, searched(None), searches, vectors.size_bytes / count, grown / count, build_s)


def exact(rows: Rows, queries: NDArray[np.float32], allowed: Sequence[Range] | None) -> list[set[int]]:
    """Of each query, the sequence numbers of the TOP best, without any index."""
    chosen = np.concatenate([np.arange(first, last + 1) for first, last in allowed or [(1, len(rows))]])
    seqs, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for at in range(0, chosen.size, 65_536):
        block = chosen[at : at + 65_536]
        scores = np.concatenate([scores, queries @ rows[block - 1].astype(np.float32).T], axis=1)
        seqs = np.concatenate([seqs, np.broadcast_to(block, (len(queries), block.size))], axis=1)
        top = np.argpartition(-scores, TOP - 1, axis=1)[:, :TOP]
        scores, seqs = np.take_along_axis(scores, top, axis=1), np.take_along_axis(seqs, top, axis=1)
    return [set(each) for each in seqs.tolist()]


def with_words(world: World, chunks: int) -> Hybrid:
    index, build_s, text_bytes = HybridIndex(), 0.0, 0
    for at in range(0, chunks, PAGE):
        seqs = range(at + 1, min(at + PAGE, chunks) + 1)
        rows = world.vectors(len(seqs) * WINDOWS).astype(np.float16).reshape(len(seqs), WINDOWS, DIMENSIONS)
        added = [Chunk(seq, world.text(CHUNK_WORDS), rows[n]) for n, seq in enumerate(seqs)]
        text_bytes += sum(len(chunk.text) for chunk in added)
        started = time.thread_time()
        index.apply(Delta(after=at, upto=seqs[-1], added=added))
        build_s += time.thread_time() - started
    queries = [Query(text=world.question(QUERY_WORDS), vector=vector) for vector in world.vectors(QUERIES)]
    words = [msgspec.structs.replace(query, vector_weight=0.0) for query in queries]
    both = [taken for _, taken in timed(lambda query: index.search(query, TOP), queries)]
    alone = [taken for _, taken in timed(lambda query: index.search(query, TOP), words)]
    return Hybrid(chunks, timing(both), timing(alone), index.size_bytes, text_bytes, build_s)


class Taken(msgspec.Struct, frozen=True):
    seconds: float
    own_seconds: float


def timed(search: Callable[[Q], R], queries: Iterable[Q]) -> Iterator[tuple[R, Taken]]:
    for query in queries:
        started, own = time.perf_counter(), time.thread_time()
        found = search(query)
        yield found, Taken(time.perf_counter() - started, time.thread_time() - own)


def timing(taken: Sequence[Taken], recall: float | None = None) -> Timing:
    wall, own = [each.seconds for each in taken], [each.own_seconds for each in taken]
    p50, p99 = np.quantile(wall, [0.5, 0.99]).tolist()
    return Timing(p50 * 1e3, p99 * 1e3, float(np.quantile(own, 0.99)) * 1e3, recall)


def rss() -> int:
    """Of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def report(found: Found, most: int) -> str:
    """As Markdown."""
    shares = " | ".join(f"filter {share:.1%}" for share in SHARES)
    rows = [
        f"| vectors | p50 | p99 | p99, own | recall@{TOP} | {shares} | bytes each | RSS each | built in, own |",
        "|---|---|---|---|---|" + "---|" * len(SHARES) + "---|---|---|",
        *(row(size) for size in found.sizes),
    ]
    hybrid = found.hybrid
    return (
        f"# What search costs\n\n`python -m perf retrieval --scale --most {most}`: {DIMENSIONS} dimensions, {CLUSTERS}"
        f" clusters, the {TOP} best, {QUERIES} queries one after the other on one core; {machine.describe()}.\n"
        "Own: time of the core itself, without what else the machine did meanwhile.\n\n"
        f"Dense search. Filters (at most {FILES} ranges): own p99, and recall@{TOP} where it is not 1.\n\n"
        + "\n".join(rows)
        + f"\n\nHybrid search, {hybrid.chunks:,} chunks of {CHUNK_WORDS} words and {WINDOWS} vectors, queries of"
        f" {QUERY_WORDS} words, built in {hybrid.build_s:.0f} s, {hybrid.index_bytes / 1e6:.0f} MB for"
        f" {hybrid.text_bytes / 1e6:.0f} MB of text.\n\n| | p50 | p99 | p99, own |\n|---|---|---|---|\n"
        f"| vectors and words | {times(hybrid.timing)} |\n| words alone | {times(hybrid.words)} |\n"
    )


def times(timing: Timing) -> str:
    return f"{timing.p50_ms:.1f} ms | {timing.p99_ms:.1f} ms | {timing.own_p99_ms:.1f} ms"


def row(size: Size) -> str:
    filters = [f"{each.own_p99_ms:.1f} ms{recall(each)}" for each in size.filtered]
    cells = [
        f"{size.rows:,}",
        f"{size.dense.p50_ms:.2f} ms",
        f"{size.dense.p99_ms:.2f} ms",
        f"{size.dense.own_p99_ms:.2f} ms",
        f"{size.dense.recall:.3f}",
        *filters,
        *["-"] * (len(SHARES) - len(filters)),
        f"{size.bytes_per_vector:.0f}",
        f"{size.rss_per_vector:.0f}",
        f"{size.build_s:.1f} s",
    ]
    return f"| {' | '.join(cells)} |"


def recall(timing: Timing) -> str:
    return "" if timing.recall is None or timing.recall >= 0.9995 else f", {timing.recall:.3f}"
