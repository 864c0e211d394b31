"""What was deleted from a conversation is not recalled any more, and its text is gone: also where nobody remembers any more
because the service runs without an embedding model."""

from __future__ import annotations

from frontend.domain.storage import UnitOfWork
from frontend.services.memory.writer import reached


async def drop_if_in_memory(uow: UnitOfWork, tenant: str, conversation_id: str, seq: int) -> None:
    """To be called in the transaction that deletes an item with the number `seq`.

    The whole memory goes, and is made anew after the next turn: words of the item are in the vectors of its neighbours.
    """
    store = await uow.vector_stores.memory(tenant, conversation_id)
    if store is None:
        return
    _, end = await reached(uow, tenant, store)
    if seq <= end:
        await uow.vector_stores.delete_memory(tenant, conversation_id)
