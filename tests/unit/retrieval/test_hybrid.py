"""retrieval/hybrid.py: likeness and words as one ranking, and an index that is its store's log, whatever the order of events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retrieval.catalog import Catalog
from retrieval.fusion import fuse
from retrieval.hybrid import HybridIndex
from retrieval.types import Chunk, Delta, Gap, Query, Range, StoreKey
from tests.unit.retrieval.oracle import DIMENSIONS, Log, best, unit_vectors, with_word

WORDS = ("red", "green", "blue")


@pytest.fixture
def index() -> HybridIndex:
    """1: like the first axis; 2: like the second, and says "apple"; 3: unlike the first; 4: of no vector."""
    rows = np.eye(DIMENSIONS, dtype=np.float16)
    made = HybridIndex()
    added = [
        Chunk(1, "nothing of that kind", rows[:1]),
        Chunk(2, "an apple", rows[1:2]),
        Chunk(3, "pear", -rows[:1]),
        Chunk(4, "apple apple", rows[:0]),
    ]
    made.apply(Delta(after=0, upto=4, added=added))
    return made


def asked(text: str, vector_weight: float = 1, text_weight: float = 1) -> Query:
    vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
    return Query(text=text, vector=vector, vector_weight=vector_weight, text_weight=text_weight)


def test_scores_are_cosines_from_zero_to_one(index: HybridIndex) -> None:
    """Of whatever way a chunk was found; what is opposite, or has no vector, has 0."""
    scores = {hit.seq: hit.score for hit in index.search(asked("apple pear"), 10)}
    assert scores == {1: 1, 2: 0, 3: 0, 4: 0}


def test_weights_choose_the_rankings(index: HybridIndex) -> None:
    """With a weight of 0 a ranking has no say."""
    assert {hit.seq for hit in index.search(asked("apple", vector_weight=0), 10)} == {2, 4}
    assert [hit.seq for hit in index.search(asked("apple", text_weight=0), 10)] == [1, 2, 3]
    assert index.search(asked("apple", vector_weight=0, text_weight=0), 10) == []
    assert index.search(asked("apple", text_weight=9), 1)[0].seq in (2, 4)


def test_what_both_rankings_have_comes_first(index: HybridIndex) -> None:
    """Second in both is better than first in one."""
    assert index.search(asked("apple"), 10)[0].seq == 2


def test_no_more_than_asked_for(index: HybridIndex) -> None:
    """k is a bound, 0 is none, and a filter that allows nothing finds nothing."""
    assert len(index.search(asked("apple"), 2)) == 2
    assert index.search(asked("apple"), 0) == []
    assert index.search(asked("apple"), 10, []) == []


def test_a_delta_with_a_hole_before_it_is_a_gap(index: HybridIndex) -> None:
    """And changes nothing."""
    with pytest.raises(Gap):
        index.apply(Delta(after=5, upto=6))
    assert index.applied == 4


def test_fusion_weighs_ranks() -> None:
    """Equals are ordered by number, so that the same search has the same answer everywhere."""
    assert fuse([(1, [1, 2]), (1, [2, 1])]) == [1, 2]
    assert fuse([(1, [1, 2]), (2, [2, 1])]) == [2, 1]
    assert fuse([(1, [5, 4]), (1, [9])]) == [5, 9, 4]
    assert fuse([]) == []


class Projection(RuleBasedStateMachine):
    """A log that grows and loses, and a catalogue that follows it: late, twice, in overlapping pieces, from before an
    eviction or in a new generation. Whenever it has caught up, it finds exactly what the log has."""

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.log = Log()
        self.generation = 0
        self.catalog = Catalog(10**9, lambda: HybridIndex(exact_rows=60))
        self.stale: list[Delta] = []

    @property
    def key(self) -> StoreKey:
        return StoreKey("tenant", "store", self.generation)

    @rule(texts=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), windows=st.integers(0, 3))
    def add(self, texts: Sequence[str], windows: int) -> None:
        self.log.add([(text, unit_vectors(self.chance, windows)) for text in texts])

    @precondition(lambda self: self.log.head > 0)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(1, self.log.head))
        self.log.remove(first, data.draw(st.integers(first, self.log.head)))

    @rule(data=st.data())
    def follow_in_part(self, data: st.DataObject) -> None:
        """From anywhere that it has reached, to anywhere: overlapping and repeated deltas are all in here."""
        after = data.draw(st.integers(0, self.catalog.applied(self.key)))
        delta = self.log.delta(after, data.draw(st.integers(after, self.log.head)))
        self.catalog.apply(self.key, delta)
        self.stale.append(delta)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """One that was read before is applied late: it tells nothing new, or there is a gap."""
        delta = data.draw(st.sampled_from(self.stale))
        if delta.upto <= (applied := self.catalog.applied(self.key)):
            self.catalog.apply(self.key, delta)
        assert self.catalog.applied(self.key) == applied

    @rule(ahead=st.integers(1, 5))
    def leave_a_gap(self, ahead: int) -> None:
        applied = self.catalog.applied(self.key)
        with pytest.raises(Gap):
            self.catalog.apply(self.key, Delta(after=applied + ahead, upto=applied + ahead + 1))
        with pytest.raises(Gap):
            self.catalog.search(self.key, asked("red"), 5, None, head=applied + ahead)

    @rule()
    def evict(self) -> None:
        self.catalog.drop(self.key)

    @rule()
    def embed_anew(self) -> None:
        """All vectors are others now, under a new generation."""
        self.generation += 1
        self.log.chunks = {
            seq: Chunk(seq, chunk.text, unit_vectors(self.chance, len(chunk.vectors)))
            for seq, chunk in self.log.chunks.items()
        }
        self.stale.clear()

    @rule(data=st.data(), k=st.integers(1, 12), word=st.sampled_from(WORDS))
    def search(self, data: st.DataObject, k: int, word: str) -> None:
        allowed = data.draw(st.none() | ranges(self.log.head))
        self.catch_up()
        self.search_alike(k, allowed)
        self.search_words(word, allowed)
        self.search_both(k, word, allowed)

    def catch_up(self) -> None:
        self.catalog.apply(self.key, self.log.delta(self.catalog.applied(self.key)))

    def hits(self, query: Query, k: int, allowed: Sequence[Range] | None) -> dict[int, float]:
        found = self.catalog.search(self.key, query, k, allowed, head=self.log.head)
        assert len({hit.seq for hit in found}) == len(found) <= k
        return {hit.seq: hit.score for hit in found}

    def search_alike(self, k: int, allowed: Sequence[Range] | None) -> None:
        vector = unit_vectors(self.chance, 1)[0].astype(np.float32)
        found = self.hits(Query(text="", vector=vector, text_weight=0), k, allowed)
        wanted = best(self.log.chunks, vector, allowed)[:k]
        assert [seq for _, seq in wanted] == list(found)
        assert list(found.values()) == pytest.approx([max(0, score) for score, _ in wanted], abs=1e-3)

    def search_words(self, word: str, allowed: Sequence[Range] | None) -> None:
        found = self.hits(asked(word, vector_weight=0), 10_000, allowed)
        assert set(found) == with_word(self.log.chunks, word, allowed)

    def search_both(self, k: int, word: str, allowed: Sequence[Range] | None) -> None:
        alike = {seq for _, seq in best(self.log.chunks, asked(word).vector, allowed)}
        there = alike | with_word(self.log.chunks, word, allowed)
        found = self.hits(asked(word), k, allowed)
        assert set(found) <= there
        assert len(found) == min(k, len(there))

    @invariant()
    def never_ahead_of_the_log(self) -> None:
        assert self.catalog.applied(self.key) <= self.log.head


def ranges(head: int) -> st.SearchStrategy[list[Range]]:
    """Ascending, without overlap."""
    bounds = st.sets(st.integers(1, max(1, head)), max_size=8).map(sorted)
    return bounds.map(lambda each: list(zip(each[::2], each[1::2], strict=False)))


Projection.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestProjection = Projection.TestCase
