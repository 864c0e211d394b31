"""Brings the memory of a conversation up to its trim, a page of turns at a time, each kept by a transaction of its own.

Several processes may do it at once: whoever finds the memory's head moved when it is about to append has lost, and what it
has made is thrown away. The conversation's row is held for that long, so that no item is deleted meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import takewhile
from typing import Literal

import msgspec
import numpy as np

from frontend.domain import ids
from frontend.domain.conversations import Conversation
from frontend.domain.documents import NewChunk, VectorStore
from frontend.domain.items import StoredItem
from frontend.domain.storage import Database, UnitOfWork
from frontend.services.context.transcript import is_system
from frontend.services.context.windows import MOST_PINNED
from frontend.services.embeddings import EmbeddingService
from frontend.services.memory.units import MOST_ITEMS, Unit, turns, units

PAGE_ITEMS = 128
"""Read at a time, about 60 turns: 1 s of embedding on one core."""
ANY_NUMBER = 2**31
"""Memories are not counted."""
Outcome = Literal["written", "lost", "not_due", "outdated"]
"""Of a page. lost: another process has done it, or an item was deleted meanwhile; outdated: the vectors that are there were
made by another embedding model, and will be replaced."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A page: turns that are not in the memory yet, and those around them."""

    store: VectorStore | None
    """As it was when the items were read; None if there is none."""
    deleted: int
    """Items of the conversation that were deleted, so far."""
    turns: Sequence[Sequence[StoredItem]]
    skipped: int
    """Of the turns, so many are in the memory already."""
    made: int


class MemoryWriter:
    def __init__(
        self,
        database: Database,
        embeddings: EmbeddingService,
        executor: Executor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`executor`: where texts are tokenised, away from the event loop."""
        self._database = database
        self._embeddings = embeddings
        self._executor = executor
        self._clock = clock

    async def write(self, tenant: str, conversation_id: str) -> Outcome:
        """The next page. Raises NotFound, and what the embedder raises."""
        plan = await self._plan(tenant, conversation_id)
        if not isinstance(plan, Plan):
            return plan
        made = await self._units(plan)
        vectors = await self._embeddings.vectors([window for unit in made for window in unit.windows], urgent=False)
        ends = np.cumsum([len(unit.windows) for unit in made])
        parts = np.split(vectors.astype(np.float16), ends[:-1])
        chunks = [
            NewChunk(text=unit.text, start=unit.start, end=unit.end, vectors=part)
            for unit, part in zip(made, parts, strict=True)
        ]
        async with self._database.writing() as uow:
            conversation = await uow.conversations.hold(tenant, conversation_id)
            store = await uow.vector_stores.memory(tenant, conversation_id)
            if deleted(conversation) != plan.deleted or not unchanged(plan.store, store):
                return "lost"
            if store is None:
                store = self._new_store(conversation_id)
                await uow.vector_stores.add(tenant, store, ANY_NUMBER)
            await uow.chunks.append(tenant, store.id, chunks)
        return "written"

    async def _plan(self, tenant: str, conversation_id: str) -> Plan | Outcome:
        async with self._database.reading() as uow:
            conversation = await uow.conversations.get(tenant, conversation_id)
            upto = conversation.trim.upto
            if not conversation.context.memory or not upto:
                return "not_due"
            store = await uow.vector_stores.memory(tenant, conversation_id)
            if store is not None and store.embedding != self._embeddings.pin:
                return "outdated"
            start, end = await reached(uow, tenant, store)
            after = start - 1 if end else await pinned(uow, tenant, conversation_id)
            if end >= upto:
                return "not_due"
            items = await uow.items.between(tenant, conversation_id, after=after, upto=upto, most=PAGE_ITEMS)
        whole = turns(items)
        skipped = sum(turn[-1].seq <= end for turn in whole)
        made = len(whole) - skipped - (len(items) == PAGE_ITEMS)  # what the last turn goes on with is not read yet
        if made <= 0:
            return "not_due"
        return Plan(store=store, deleted=deleted(conversation), turns=whole, skipped=skipped, made=made)

    async def _units(self, plan: Plan) -> list[Unit]:
        window_tokens = self._embeddings.pin.window_tokens
        read = self._embeddings.tokens
        make = partial(units, plan.turns, read, window_tokens, skipped=plan.skipped, made=plan.made)
        return await asyncio.get_running_loop().run_in_executor(self._executor, make)

    def _new_store(self, conversation_id: str) -> VectorStore:
        now = int(self._clock())
        return VectorStore(
            id=ids.new("vs_"),
            kind="memory",
            conversation_id=conversation_id,
            metadata={},
            created_at=now,
            last_active_at=now,
            embedding=self._embeddings.pin,
        )


assert PAGE_ITEMS > 2 * MOST_ITEMS + 1, "a page holds the last turn that is in the memory, and a whole one behind it"


async def reached(uow: UnitOfWork, tenant: str, store: VectorStore | None) -> tuple[int, int]:
    """First and last item of the newest turn in the memory; 0, 0 if there is none."""
    if store is None or not store.head:
        return 0, 0
    newest = (await uow.chunks.read(tenant, store.id, [store.head]))[store.head]
    return newest.start, newest.end


async def pinned(uow: UnitOfWork, tenant: str, conversation_id: str) -> int:
    """The last of the leading system messages: they are never left out."""
    leading = await uow.items.leading(tenant, conversation_id, MOST_PINNED)
    return max((stored.seq for stored in takewhile(lambda stored: is_system(stored.item), leading)), default=0)


def deleted(conversation: Conversation) -> int:
    return conversation.head - conversation.item_count


def unchanged(before: VectorStore | None, now: VectorStore | None) -> bool:
    if before is None or now is None:
        return before is now
    return (before.id, before.generation, before.head) == (now.id, now.generation, now.head)
