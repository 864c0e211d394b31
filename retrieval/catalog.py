"""The indexes that one process holds: made when first asked for, and gone when others need their memory. Knows no library."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from retrieval.hybrid import HybridIndex
from retrieval.types import Delta, Gap, Hit, Index, Query, Range, StoreKey


class Catalog:
    """Thread-safe. One lock a store: searches and changes of one wait for each other, those of others do not.

    What is dropped or evicted while a thread still searches it lives until that thread is done.
    """

    def __init__(self, most_bytes: int, make: Callable[[], Index] = HybridIndex) -> None:
        """`most_bytes`: of all indexes together; the one used last stays, however large it is."""
        self._most_bytes = most_bytes
        self._make = make
        self._lock = threading.Lock()
        self._entries: OrderedDict[StoreKey, _Entry] = OrderedDict()
        """The one used last at the end."""

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return sum(entry.size_bytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def applied(self, key: StoreKey) -> int:
        """0 for one that is not loaded. Does not wait for those who work on it."""
        entry = self._find(key)
        return entry.applied if entry else 0

    def apply(self, key: StoreKey, delta: Delta) -> None:
        """Raises Gap if the index does not reach `delta.after`. An index that fails is gone."""
        entry = self._find(key) or self._begin(key, delta)
        with entry.lock:
            try:
                entry.index.apply(delta)
            except Gap:
                raise
            except BaseException:
                self._forget(key, entry)  # it holds a part of the delta, and nobody knows which
                raise
            entry.applied, entry.size_bytes = entry.index.applied, entry.index.size_bytes
        self._evict()

    def search(self, key: StoreKey, query: Query, k: int, allowed: Sequence[Range] | None, *, head: int) -> list[Hit]:
        """Raises Gap if the index does not reach `head` (any more)."""
        if head == 0:
            return []  # nothing was ever put there
        entry = self._find(key)
        if entry is None:
            raise Gap
        with entry.lock:
            if entry.index.applied < head:
                raise Gap
            return entry.index.search(query, k, allowed)

    def drop(self, key: StoreKey) -> None:
        """And all other generations of the store."""
        with self._lock:
            for other in self._generations(key):
                del self._entries[other]

    def _find(self, key: StoreKey) -> _Entry | None:
        with self._lock:
            if entry := self._entries.get(key):
                self._entries.move_to_end(key)
            return entry

    def _begin(self, key: StoreKey, delta: Delta) -> _Entry:
        """An empty index; those of earlier generations are worth nothing now."""
        if delta.after > 0:
            raise Gap
        with self._lock:
            for other in self._generations(key):
                if other.generation < key.generation:
                    del self._entries[other]
            return self._entries.setdefault(key, _Entry(self._make()))

    def _generations(self, key: StoreKey) -> list[StoreKey]:
        return [k for k in self._entries if (k.tenant, k.store_id) == (key.tenant, key.store_id)]

    def _forget(self, key: StoreKey, entry: _Entry) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]

    def _evict(self) -> None:
        with self._lock:
            size = sum(entry.size_bytes for entry in self._entries.values())
            while size > self._most_bytes and len(self._entries) > 1:
                _, entry = self._entries.popitem(last=False)
                size -= entry.size_bytes


class _Entry:
    """`applied` and `size_bytes` are the index's own when it was last left: they are read without its lock."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.lock = threading.Lock()
        self.applied = 0
        self.size_bytes = 0
