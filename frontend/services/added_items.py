"""Items that are to be added to a conversation: references become copies, and results have their calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec

from frontend.domain import ids
from frontend.domain.errors import InvalidRequest, NotFound
from frontend.domain.items import (
    CompactionItem,
    FileSearchCallItem,
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    ItemReference,
    MessageItem,
)
from frontend.domain.storage import UnitOfWork
from frontend.services.resource_ids import could_be

MOST_REFERENCES = 256
"""In one list; they are looked up with one statement."""


def plausible(item_id: str) -> str:
    """Raises NotFound for what cannot be an item's id."""
    if not could_be(item_id):
        raise missing(item_id)
    return item_id


async def resolved(uow: UnitOfWork, tenant: str, items: Sequence[Item | ItemReference]) -> list[Item]:
    """Items in the place of references, as copies with ids of their own. Raises NotFound."""
    wanted = [item.id for item in items if isinstance(item, ItemReference)]
    if len(wanted) > MOST_REFERENCES:
        raise InvalidRequest(f"At most {MOST_REFERENCES} items are referred to.", param="input")
    kept = await uow.items.find(tenant, [each for each in wanted if could_be(each)]) if wanted else {}
    return [copy(kept, item.id) if isinstance(item, ItemReference) else item for item in items]


def copy(kept: Mapping[str, Item], item_id: str) -> Item:
    if item_id not in kept:
        raise missing(item_id, "items")
    prefix = item_id.rpartition("_")[0]
    return msgspec.structs.replace(kept[item_id], id=ids.new(f"{prefix}_"))


def chars_of(item: Item) -> int:
    """What a prompt would have to hold of it."""
    match item:
        case MessageItem() | FunctionOutputItem():
            return len(item.text)
        case FunctionCallItem():
            return len(item.name) + len(item.arguments)
        case CompactionItem():
            return len(item.summary)
        case FileSearchCallItem():
            return 0
        case _:
            assert_never(item)


def unanswerable(items: Sequence[Item]) -> set[str]:
    """Ids of the calls whose results are among `items` without the call itself before them."""
    calls: set[str] = set()
    missing: set[str] = set()
    for item in items:
        if isinstance(item, FunctionCallItem):
            calls.add(item.call_id)
        elif isinstance(item, FunctionOutputItem) and item.call_id not in calls:
            missing.add(item.call_id)
    return missing


def no_call(missing: set[str]) -> InvalidRequest:
    return InvalidRequest(
        f"No tool call found for function call output with call_id {', '.join(sorted(missing))}.", param="items"
    )


def missing(item_id: str, param: str | None = None) -> NotFound:
    return NotFound(f"No item found with id {item_id!r}.", param=param)
