"""What is found by its metadata: each entry of it stands in an index, in the order of its owners' making.

An entry is kept as the digest of its key and value, which may have 64 and 512 characters: so all have one length, and fit into
an index's page whatever they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import FromClause, Join, Select, delete, insert, inspect, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql.compiler import SQLCompiler

from frontend.db.models import CompletionLabelRow, CompletionRow, ConversationLabelRow, ConversationRow, LabelRow
from frontend.db.transaction import ID, TENANT, Transaction

DIGEST_BYTES = 16
Query = Select[*tuple[Any, ...]]
Keys = Sequence[InstrumentedAttribute[Any]]


def digest(key: str, value: str) -> bytes:
    return hashlib.blake2b(msgspec.json.encode([key, value]), digest_size=DIGEST_BYTES).digest()


class Labels:
    """Of one table's rows, which `owner` is."""

    def __init__(self, owner: type[ConversationRow] | type[CompletionRow], table: type[LabelRow]) -> None:
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

    def among(self, query: Query, tenant: str, metadata: Mapping[str, str]) -> tuple[Query, Keys]:
        """Those of `query`, which are the tenant's, that have all of `metadata`; and the columns that they are in order by."""
        if not metadata:
            return query, [self._owner.created_at, self._owner.id]
        labels = [aliased(self._table, name=f"label_{number}") for number in range(len(metadata))]
        first, *others = labels
        tables: FromClause = from_clause(first)
        for other in (*others, self._owner):
            tables = InThisOrder(tables, from_clause(other), true())
            query = query.where(other.created_at == first.created_at, other.id == first.id)
        for label, entry in zip(labels, metadata.items(), strict=True):
            query = query.where(label.tenant == tenant, label.label == digest(*entry))
        return query.select_from(tables), [first.created_at, first.id]


def from_clause(table: Any) -> FromClause:
    found: FromClause = inspect(table).selectable
    return found


class InThisOrder(Join):
    """SQLite knows nothing of how often a label is there, and would go through all of the tenant's owners first."""

    inherit_cache = True


@compiles(InThisOrder, "sqlite")
def cross_join(join: InThisOrder, compiler: SQLCompiler, **options: Any) -> str:
    left, right = (compiler.process(side, **{**options, "asfrom": True}) for side in (join.left, join.right))
    return f"{left} CROSS JOIN {right}"


OF_CONVERSATIONS = Labels(ConversationRow, ConversationLabelRow)
OF_COMPLETIONS = Labels(CompletionRow, CompletionLabelRow)
