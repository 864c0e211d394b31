"""retrieval/catalog.py: indexes come and go with memory, and whoever needs one that is gone is told so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retrieval.catalog import Catalog
from retrieval.hybrid import HybridIndex
from retrieval.types import Delta, Gap, Hit, Query, Range, StoreKey
from tests.unit.retrieval.oracle import DIMENSIONS, Log, unit_vectors

A, B = StoreKey("tenant", "a"), StoreKey("tenant", "b")
QUERY = Query(text="word", vector=np.eye(1, DIMENSIONS, dtype=np.float32)[0])


def filled(count: int = 3) -> Log:
    log = Log()
    log.add([("word", rows[None]) for rows in unit_vectors(np.random.default_rng(1), count)])
    return log


def found(catalog: Catalog, key: StoreKey, log: Log) -> set[int]:
    return {hit.seq for hit in catalog.search(key, QUERY, 100, None, head=log.head)}


def test_what_is_not_there_is_a_gap() -> None:
    """An index that is not loaded cannot be searched or brought forward, and says so; an empty store needs none."""
    catalog = Catalog(10**9)
    assert catalog.applied(A) == 0
    with pytest.raises(Gap):
        catalog.search(A, QUERY, 10, None, head=1)
    with pytest.raises(Gap):
        catalog.apply(A, Delta(after=1, upto=2))
    assert catalog.search(A, QUERY, 10, None, head=0) == []
    assert len(catalog) == 0


def test_an_index_that_is_behind_is_a_gap() -> None:
    """No search answers from an index that is older than the store was when it was asked."""
    catalog, log = Catalog(10**9), filled()
    catalog.apply(A, log.delta(0, 2))
    with pytest.raises(Gap):
        catalog.search(A, QUERY, 10, None, head=3)
    catalog.apply(A, log.delta(2))
    assert found(catalog, A, log) == {1, 2, 3}


def test_drop_takes_all_generations() -> None:
    """And leaves other stores, also those of the same name of another tenant."""
    catalog, log = Catalog(10**9), filled()
    other = StoreKey("another", "a")
    for key in (A, B, other):
        catalog.apply(key, log.delta(0))
    catalog.drop(StoreKey("tenant", "a", 7))
    assert [catalog.applied(key) for key in (A, B, other)] == [0, 3, 3]


def test_a_new_generation_takes_the_place_of_the_old() -> None:
    """Both are never searched together, and only one takes memory."""
    catalog, log = Catalog(10**9), filled()
    catalog.apply(A, log.delta(0))
    catalog.apply(StoreKey("tenant", "a", 1), log.delta(0))
    assert (catalog.applied(A), catalog.applied(StoreKey("tenant", "a", 1))) == (0, 3)


def test_the_least_recently_used_goes() -> None:
    """When memory is short, by bytes; a search is a use."""
    log = filled(100)
    size = alone(log)
    catalog = Catalog(int(2.5 * size))
    for key in (A, B):
        catalog.apply(key, log.delta(0))
    found(catalog, A, log)
    catalog.apply(StoreKey("tenant", "c"), log.delta(0))
    assert [catalog.applied(key) for key in (A, B)] == [100, 0]
    assert catalog.size_bytes <= 2.5 * size


def test_one_that_is_too_large_for_all_memory_stays() -> None:
    """As long as nobody else needs it: a store must be searchable at all."""
    catalog, log = Catalog(1), filled()
    catalog.apply(A, log.delta(0))
    assert found(catalog, A, log) == {1, 2, 3}
    catalog.apply(B, log.delta(0))
    assert len(catalog) == 1


def alone(log: Log) -> int:
    index = HybridIndex()
    index.apply(log.delta(0))
    return index.size_bytes


class Slow(HybridIndex):
    """A search says that it has begun, and waits for leave to end."""

    begun, leave = threading.Event(), threading.Event()

    def search(self, query: Query, k: int, allowed: Sequence[Range] | None = None) -> list[Hit]:
        self.begun.set()
        assert self.leave.wait(10)
        return super().search(query, k, allowed)


@pytest.mark.parametrize(
    "lose", [lambda catalog, log: catalog.drop(A), lambda catalog, log: catalog.apply(B, log.delta(0))]
)
def test_losing_an_index_while_it_is_searched_is_safe(lose: Callable[[Catalog, Log], None]) -> None:
    """Neither waits for the other: the search ends with what it has found, and the next one finds a gap."""
    Slow.begun, Slow.leave = threading.Event(), threading.Event()
    catalog, log = Catalog(1, Slow), filled()
    catalog.apply(A, log.delta(0))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(found, catalog, A, log)
        assert Slow.begun.wait(10)
        lose(catalog, log)
        Slow.leave.set()
        assert running.result(10) == {1, 2, 3}
    with pytest.raises(Gap):
        found(catalog, A, log)


class Broken(HybridIndex):
    def apply(self, delta: Delta) -> None:
        super().apply(delta)
        if delta.upto > 2:
            raise MemoryError


def test_an_index_that_fails_is_gone() -> None:
    """One that may hold half of a delta is never searched."""
    catalog, log = Catalog(10**9, Broken), filled()
    catalog.apply(A, log.delta(0, 2))
    with pytest.raises(MemoryError):
        catalog.apply(A, log.delta(2))
    assert catalog.applied(A) == 0


def test_many_threads_see_whole_states() -> None:
    """Searches beside changes, evictions and drops find what some state of the log has, at least as new as they asked for."""
    log = filled(400)
    size = alone(log)
    catalog = Catalog(int(1.5 * size))
    keys = [A, B, StoreKey("tenant", "c")]

    def work(seed: int) -> int:
        chance, searches = np.random.default_rng(seed), 0
        for _ in range(150):
            key = keys[int(chance.integers(3))]
            head = int(chance.integers(1, 401))
            try:
                after = catalog.applied(key)
                catalog.apply(key, log.delta(after, max(after, head)))
                hits = {hit.seq for hit in catalog.search(key, QUERY, 500, None, head=head)}
            except Gap:
                continue
            assert hits == set(range(1, max(hits) + 1))
            assert max(hits) >= head
            searches += 1
            if chance.random() < 0.05:
                catalog.drop(key)
        return searches

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) > 100
    assert catalog.size_bytes <= 1.5 * size
