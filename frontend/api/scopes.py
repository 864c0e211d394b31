"""What a request reaches beside its route: ids in bodies and headers need the scope that their own routes need."""

from __future__ import annotations

from typing import Protocol

from msgspec import UnsetType

from frontend.api.new_conversations import ContextSwitches
from frontend.domain.principal import Principal
from frontend.services.file_search import FileSearch


class Turn(Protocol):
    """A chat completion or a response."""

    @property
    def conversation_id(self) -> str | None: ...
    @property
    def session_id(self) -> str | None: ...
    @property
    def file_search(self) -> FileSearch | None: ...


def require_for_turn(principal: Principal, turn: Turn) -> None:
    """Raises Forbidden."""
    if turn.conversation_id is not None:
        principal.require("conversations", "conversation")
    if turn.session_id is not None:
        principal.require("conversations", "X-Session-ID")
    if turn.file_search is not None:
        principal.require("retrieval:read", "tools")


def require_for_context(principal: Principal, context: ContextSwitches | UnsetType | None) -> None:
    """Of a conversation, whose turns will search these stores. Raises Forbidden."""
    if isinstance(context, ContextSwitches) and context.vector_store_ids:
        principal.require("retrieval:read", "context.vector_store_ids")
