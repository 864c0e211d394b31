"""The conversation that a turn goes on from, as far as its prompt can see it."""

from __future__ import annotations

from frontend.domain.conversations import Window
from frontend.domain.ports import HotState
from frontend.domain.storage import Database
from frontend.observability import tracing
from frontend.services.context.windows import load_window
from frontend.services.conversations import ConversationService


class Windows:
    def __init__(self, database: Database, hot_state: HotState, conversations: ConversationService) -> None:
        self._database = database
        self._hot_state = hot_state
        self._conversations = conversations

    async def of(self, tenant: str, conversation_id: str, param: str) -> Window:
        """Raises NotFound, naming `param`, Unavailable."""
        with tracing.span("conversation.read") as span:
            async with self._database.reading() as uow:
                conversation = await self._conversations.find(uow, tenant, conversation_id, param)
                window = await load_window(uow, self._hot_state, tenant, conversation)
            span.set("gen_ai.conversation.id", window.conversation.id)
            span.set("hermes2.items", len(window.history))
            return window
