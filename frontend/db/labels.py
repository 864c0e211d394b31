"""What is found by its metadata: each entry of it stands in an index, in the order of its owners' making.

An entry is kept as the digest of its key and value, which may have 64 and 512 characters: so all have one length, and fit into
an index's page whatever they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import LargeBinary, Select, bindparam, delete, insert
from sqlalchemy.orm import InstrumentedAttribute, aliased

from frontend.db.models import CompletionLabelRow, CompletionRow, ConversationLabelRow, ConversationRow
from frontend.db.transaction import ID, TENANT, Transaction

DIGEST_BYTES = 16
Query = Select[*tuple[Any, ...]]
Keys = Sequence[InstrumentedAttribute[Any]]


def digest(key: str, value: str) -> bytes:
    return hashlib.blake2b(msgspec.json.encode([key, value]), digest_size=DIGEST_BYTES).digest()


class Labels:
    """Of one table's rows, which `owner` is."""

    def __init__(
        self,
        owner: type[ConversationRow] | type[CompletionRow],
        table: type[ConversationLabelRow] | type[CompletionLabelRow],
    ) -> None:
        self._owner, self._table = owner, table
        self._add = insert(table)
        self._clear = delete(table).where(table.tenant == TENANT, table.id == ID)

    async def add(
        self, transaction: Transaction, tenant: str, owner_id: str, created_at: int, metadata: Mapping[str, str]
    ) -> None:
        rows = [
            {"tenant": tenant, "label": digest(key, value), "created_at": created_at, "id": owner_id}
            for key, value in metadata.items()
        ]
        await transaction.run_many(self._add, rows)

    async def replace(
        self, transaction: Transaction, tenant: str, owner_id: str, created_at: int, metadata: Mapping[str, str]
    ) -> None:
        await transaction.run(self._clear, of_tenant=tenant, of_id=owner_id)
        await self.add(transaction, tenant, owner_id, created_at, metadata)

    def among(self, query: Query, metadata: Mapping[str, str]) -> tuple[Query, Keys]:
        """The owners of `query` that have all of `metadata`, and the columns that they are in order by."""
        keys: Keys = [self._owner.created_at, self._owner.id]
        query = query.select_from(self._owner)
        for number, entry in enumerate(metadata.items()):
            label = aliased(self._table, name=f"label_{number}")
            mine = (label.tenant == self._owner.tenant) & (label.created_at == keys[0]) & (label.id == keys[1])
            wanted = bindparam(f"label_{number}", digest(*entry), type_=LargeBinary())
            query = query.join(label, mine & (label.label == wanted))
            if number == 0:
                keys = [label.created_at, label.id]
        return query, keys


OF_CONVERSATIONS = Labels(ConversationRow, ConversationLabelRow)
OF_COMPLETIONS = Labels(CompletionRow, CompletionLabelRow)
