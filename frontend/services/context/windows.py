"""Where a turn gets its conversation from: SQL says what is true, the hot state saves reading it all again."""

from __future__ import annotations

from itertools import takewhile

import msgspec

from frontend.domain.conversations import Conversation, Window
from frontend.domain.ports import HotState
from frontend.domain.storage import UnitOfWork
from frontend.services.context.transcript import is_system

MOST_PINNED = 64
"""Leading system messages of one conversation; any others are history."""


async def load_window(uow: UnitOfWork, hot_state: HotState, tenant: str, conversation: Conversation) -> Window:
    """`conversation`: as this very unit of work has read it. Raises Unavailable."""
    window = await hot_state.get_window(tenant, conversation.id, conversation.version)
    if window is not None:
        return settled(msgspec.structs.replace(window, conversation=conversation))
    trim = conversation.trim
    pinned = []
    if trim.upto:
        leading = await uow.items.leading(tenant, conversation.id, MOST_PINNED)
        pinned = list(takewhile(lambda stored: is_system(stored.item), leading))
    first = max(trim.upto, pinned[-1].seq if pinned else 0)
    history = await uow.items.behind(tenant, conversation.id, first)
    window = settled(Window(conversation=conversation, pinned=pinned, history=history))
    await hot_state.put_window(tenant, window)
    return window


def settled(window: Window) -> Window:
    """With the leading system messages pinned, also those that a first turn has just added."""
    if window.conversation.trim.upto:
        return window
    leading = list(takewhile(lambda stored: is_system(stored.item), window.history[:MOST_PINNED]))
    if not leading:
        return window
    pinned = [*window.pinned, *leading]
    return msgspec.structs.replace(window, pinned=pinned, history=window.history[len(leading) :])
