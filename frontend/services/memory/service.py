"""The memory of conversations: kept in the background after the turns, and recalled in the turns that follow.

Nobody waits for what is done between the turns, and nothing is lost if it fails: the next turn finds it undone. A memory is
a store of its own (domain/documents, kind "memory"), whose log holds the turns in their order: next to a unit's number are
those of its neighbours.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager

import structlog
from prometheus_client import Counter

from frontend.domain.conversations import Conversation, Window
from frontend.domain.documents import FoundChunk, VectorStore
from frontend.domain.errors import InvalidRequest, NotFound, ServiceError
from frontend.domain.items import Item
from frontend.domain.storage import Database
from frontend.observability import tracing
from frontend.services.embeddings import EmbeddingService
from frontend.services.memory.recall import MOST_HITS, question, told, wanted
from frontend.services.memory.writer import MemoryWriter
from frontend.services.search import SearchService
from frontend.services.tokenize import Tokenizer
from retrieval.types import Query

log = structlog.get_logger("hermes2.memory")
PAGES = Counter(
    "hermes2_memory_pages", "Pages of turns that were to be put into a memory, by how that ended.", ["outcome"]
)
RECALLS = Counter("hermes2_memory_recalls", "Questions with something to recall from, by what came of it.", ["outcome"])
MOST_WAITING = 64
"""Conversations that wait for their place; the next turn of any other asks again."""
MOST_KNOWN = 4096
"""Conversations whose memory's index can be forgotten with them; those of others make room for what is used."""


class MemoryService:
    def __init__(
        self,
        database: Database,
        search: SearchService,
        embeddings: EmbeddingService,
        tokenizer: Tokenizer,
        executor: Executor,
        *,
        places: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`executor`: where texts are tokenised. `places`: conversations that are worked on at once; 0: none."""
        self._database = database
        self._search = search
        self._pin = embeddings.pin
        self._tokenizer = tokenizer
        self._writer = MemoryWriter(database, embeddings, executor, clock)
        self._most_tasks = places and places + MOST_WAITING
        self._places = asyncio.Semaphore(places)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._again: set[tuple[str, str]] = set()
        """Asked for once more while they were worked on."""
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ends what is under way on the way out; a page that is not stored by then never was."""
        try:
            yield
        finally:
            self._closed = True
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def after_turn(self, tenant: str, conversation_id: str) -> None:
        """To be called when a turn is stored or a trim was moved. Returns at once."""
        key = tenant, conversation_id
        if key in self._tasks:
            self._again.add(key)
        elif not self._closed and len(self._tasks) < self._most_tasks:
            work = self._run(tenant, conversation_id)
            self._tasks[key] = asyncio.create_task(work, context=tracing.outside())
            self._tasks[key].add_done_callback(lambda _: self._tasks.pop(key))

    async def idle(self) -> None:
        """Until nothing is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _run(self, tenant: str, conversation_id: str) -> None:
        """Page by page, each in a place of its own: a long conversation does not keep the others waiting."""
        key, more = (tenant, conversation_id), True
        while more:
            self._again.discard(key)
            async with self._places:
                outcome = await self._page(tenant, conversation_id)
            PAGES.labels(outcome).inc()
            more = outcome == "written" or key in self._again

    async def _page(self, tenant: str, conversation_id: str) -> str:
        try:
            return await self._writer.write(tenant, conversation_id)
        except NotFound:
            return "gone"
        except ServiceError as exc:
            log.warning("memory_not_written", conversation=conversation_id, error=exc.code)
        except Exception as exc:  # a defect must not end the turns that follow
            log.error("memory_not_written", conversation=conversation_id, exc_info=exc)
        return "failed"

    async def recall(self, tenant: str, window: Window, given: Sequence[Item], budget_tokens: int) -> list[str]:
        """Texts of system turns, of `budget_tokens` together at most: what was left out and bears on the question.

        `given`: the turn's input. Empty where nothing was left out, or nothing of it is alike. Raises Unavailable, Timeout:
        a turn can do without.
        """
        conversation = window.conversation
        if budget_tokens <= 0 or not conversation.trim.upto or not conversation.context.memory:
            return []
        text = question(given, window)
        if text is None:
            return []
        try:
            recalled = await self._recall(tenant, conversation, text, budget_tokens)
        except (NotFound, InvalidRequest):  # deleted since the window was read, or its vectors are being replaced
            return []
        except ServiceError:
            RECALLS.labels("failed").inc()
            raise
        RECALLS.labels("recalled" if recalled else "nothing").inc()
        return [] if recalled is None else [recalled]

    async def _recall(self, tenant: str, conversation: Conversation, text: str, budget_tokens: int) -> str | None:
        async with self._database.reading() as uow:
            store = await uow.vector_stores.memory(tenant, conversation.id)
        if store is None or not store.head or store.embedding != self._pin:
            return None
        await self._note(tenant, conversation.id, store.id)
        (vector,) = await self._search.query_vectors([text])
        hits = await self._search.hits(tenant, store, Query(text=text, vector=vector), MOST_HITS, None)
        order = wanted(hits)
        if not order:
            return None
        found = await self._read(tenant, store, conversation.trim.upto, order)
        return await told(self._tokenizer, order, found, budget_tokens)

    async def _read(self, tenant: str, store: VectorStore, upto: int, numbers: Sequence[int]) -> dict[int, FoundChunk]:
        """As the database has them now, without what this turn's prompt shows."""
        async with self._database.reading() as uow:
            found = await uow.chunks.read(tenant, store.id, numbers)
        return {number: chunk for number, chunk in found.items() if chunk.end <= upto}

    async def forget(self, tenant: str, conversation_id: str) -> None:
        """The conversation is gone: its index goes from this process, if it is here."""
        store_id = self._known.pop((tenant, conversation_id), None)
        if store_id is not None:
            await self._search.forget(tenant, store_id)

    async def _note(self, tenant: str, conversation_id: str, store_id: str) -> None:
        before = self._known.get((tenant, conversation_id), store_id)
        self._known[tenant, conversation_id] = store_id
        self._known.move_to_end((tenant, conversation_id))
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        if before != store_id:  # made anew since an item was deleted
            await self._search.forget(tenant, before)
