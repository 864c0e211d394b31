"""What a turn is given beside what was said: passages of documents, and what its conversation recalls.

A search that the request asks for is a part of the answer: without it there is none. All else is a help: a turn goes on
without it, and says so (`degraded`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from frontend.domain.conversations import Window
from frontend.domain.errors import InvalidRequest, ServiceError, Unavailable
from frontend.domain.items import Item
from frontend.domain.messages import Message
from frontend.domain.responses import Degraded
from frontend.observability import tracing
from frontend.services.file_search import FileSearch, FileSearchService, Found, messages_of
from frontend.services.memory.service import MemoryService
from frontend.settings import RetrievalSettings

log = structlog.get_logger("hermes2.lookups")


class LookedUp(msgspec.Struct, frozen=True, kw_only=True):
    found: Found | None = None
    """None: nothing was searched."""
    memory: Sequence[str] = ()
    """Texts of system turns."""
    degraded: Sequence[Degraded] = ()

    @property
    def retrieval(self) -> Sequence[str]:
        """Texts of system turns."""
        return self.found.texts if self.found is not None else ()


class Lookups:
    def __init__(
        self, file_search: FileSearchService | None, memory: MemoryService | None, limits: RetrievalSettings
    ) -> None:
        """None of both: there is no embedding model."""
        self._file_search = file_search
        self._memory = memory
        self._limits = limits

    async def of_messages(
        self, tenant: str, wanted: FileSearch | None, said: Sequence[Message], window_tokens: int
    ) -> LookedUp:
        """For a turn outside of conversations. Raises NotFound, InvalidRequest, Unavailable."""
        if wanted is None:
            return LookedUp()
        return LookedUp(found=await self._asked_for(tenant, wanted, said, window_tokens))

    async def of_turn(
        self, tenant: str, wanted: FileSearch | None, window: Window, given: Sequence[Item], window_tokens: int
    ) -> LookedUp:
        """For a turn of a conversation; `wanted` takes the place of what is attached to it. The same errors."""
        switches = window.conversation.context
        room = min(window_tokens, switches.budget_tokens or window_tokens)
        said = messages_of([*(stored.item for stored in window.history), *given])
        degraded: list[Degraded] = []
        found: Found | None = None
        if wanted is not None:
            found = await self._asked_for(tenant, wanted, said, room)
        elif switches.retrieval and switches.vector_store_ids:
            try:
                found = await self._attached(tenant, switches.vector_store_ids, said, room)
            except ServiceError as exc:
                log.warning("retrieval_degraded", conversation=window.conversation.id, error=exc.code)
                degraded.append("retrieval")
        memory: Sequence[str] = ()
        try:
            memory = await self._recalled(tenant, window, given, room)
        except ServiceError as exc:
            log.warning("memory_degraded", conversation=window.conversation.id, error=exc.code)
            degraded.append("memory")
        return LookedUp(found=found, memory=memory, degraded=degraded)

    def after_turn(self, tenant: str, conversation_id: str) -> None:
        """Returns at once."""
        if self._memory is not None:
            self._memory.after_turn(tenant, conversation_id)

    async def _asked_for(self, tenant: str, wanted: FileSearch, said: Sequence[Message], room: int) -> Found:
        if self._file_search is None:
            raise InvalidRequest(
                "The tool 'file_search' is not supported by this service: it runs without an embedding model.",
                param="tools",
                code="unsupported_parameter",
            )
        return await self._find(self._file_search, tenant, wanted, said, room)

    async def _attached(self, tenant: str, store_ids: Sequence[str], said: Sequence[Message], room: int) -> Found:
        if self._file_search is None:
            raise Unavailable("There is no embedding model.")
        return await self._find(self._file_search, tenant, FileSearch(store_ids=store_ids), said, room)

    @staticmethod
    async def _find(
        service: FileSearchService, tenant: str, wanted: FileSearch, said: Sequence[Message], room: int
    ) -> Found:
        with tracing.span("documents.search") as span:
            found = await service.find(tenant, wanted, said, room)
            span.set("hermes2.stores", len(wanted.store_ids))
            span.set("hermes2.passages", len(found.passages))
            return found

    async def _recalled(self, tenant: str, window: Window, given: Sequence[Item], room: int) -> Sequence[str]:
        conversation = window.conversation
        if self._memory is None or not conversation.context.memory or not conversation.trim.upto:
            return ()
        with tracing.span("memory.recall") as span:
            recalled = await self._memory.recall(tenant, window, given, min(self._limits.memory_tokens, room // 8))
            span.set("hermes2.texts", len(recalled))
            return recalled
