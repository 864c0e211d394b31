"""A reader that follows the log of a store into a dict, as an index does, and checks itself against SQL."""

from __future__ import annotations

from frontend.domain.storage import Database

EVERYTHING = 10**6


class Projection:
    def __init__(self, database: Database, tenant: str = "a", store_id: str = "vs_1") -> None:
        self._database = database
        self._tenant = tenant
        self._store_id = store_id
        self.applied = 0
        self.texts: dict[int, str] = {}
        self.compared = 0
        """How often it was at the head, and was compared."""
        self.rebuilt = 0

    async def follow(self, most: int = 7) -> bool:
        """One step; whether it is at the head of the log now. Then it holds what SQL holds, in the same snapshot."""
        async with self._database.reading() as uow:
            store = await uow.vector_stores.get(self._tenant, self._store_id)
            if 0 < self.applied < store.floor:
                self.applied, self.texts, self.rebuilt = 0, {}, self.rebuilt + 1
            delta = await uow.chunks.delta(self._tenant, store, self.applied, most)
            assert delta.after == self.applied
            assert all(self.applied < chunk.seq <= delta.upto for chunk in delta.added)
            for first, last in delta.removed:
                for seq in range(first, last + 1):
                    self.texts.pop(seq, None)
            self.texts |= {chunk.seq: chunk.text for chunk in delta.added}
            self.applied = delta.upto
            if self.applied != store.head:
                return False
            everything = await uow.chunks.delta(self._tenant, store, 0, EVERYTHING)
            assert self.texts == {chunk.seq: chunk.text for chunk in everything.added}
            self.compared += 1
            return True

    async def to_the_head(self) -> None:
        while not await self.follow():
            pass
