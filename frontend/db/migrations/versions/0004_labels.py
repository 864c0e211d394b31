"""Entries of the metadata of conversations and chat completions have an index (frontend/db/labels.py)."""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
OWNERS = (("conversations", "conversation_labels"), ("chat_completions", "chat_completion_labels"))
AT_ONCE = 1000


def required(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    for owner, name in OWNERS:
        table = op.create_table(
            name,
            required("tenant", sa.Text),
            required("label", sa.LargeBinary),
            required("created_at", sa.BigInteger),
            required("id", sa.Text),
            sa.PrimaryKeyConstraint("tenant", "label", "created_at", "id", name=f"pk_{name}"),
            sa.ForeignKeyConstraint(
                ["tenant", "id"],
                [f"{owner}.tenant", f"{owner}.id"],
                name=f"fk_{name}_tenant_id",
                ondelete="CASCADE",
            ),
        )
        for some in entries(owner):
            op.bulk_insert(table, some)
        op.create_index(f"ix_{name}_tenant_id", name, ["tenant", "id"])


def entries(owner: str) -> Iterator[list[dict[str, Any]]]:
    """Of all rows, those of so many rows at a time."""
    rows = sa.table(
        owner,
        sa.column("tenant", sa.Text),
        sa.column("id", sa.Text),
        sa.column("created_at", sa.BigInteger),
        sa.column("metadata", JSON),
    )
    key = sa.tuple_(rows.c.tenant, rows.c.id)
    in_order = sa.select(rows).order_by(rows.c.tenant, rows.c.id).limit(AT_ONCE)
    found = op.get_bind().execute(in_order).all()
    while found:
        yield [
            {"tenant": row.tenant, "label": digest(*entry), "created_at": row.created_at, "id": row.id}
            for row in found
            for entry in row.metadata.items()
        ]
        behind = key > sa.tuple_(found[-1].tenant, found[-1].id, types=[sa.Text(), sa.Text()])
        found = op.get_bind().execute(in_order.where(behind)).all()


def digest(key: str, value: str) -> bytes:
    return hashlib.blake2b(msgspec.json.encode([key, value]), digest_size=16).digest()
