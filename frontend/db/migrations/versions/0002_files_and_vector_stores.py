"""Files, vector stores and memories, their jobs and their logs."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def required(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def part_of(parent: str, column: str, name: str) -> sa.ForeignKeyConstraint:
    columns = [f"{parent}.tenant", f"{parent}.id"]
    return sa.ForeignKeyConstraint(["tenant", column], columns, name=name, ondelete="CASCADE")


def where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    files()
    stores()
    store_files()
    logs()
    op.add_column("responses", sa.Column("degraded", sa.Text))


def files() -> None:
    op.create_table(
        "files",
        required("tenant", sa.Text),
        required("id", sa.Text),
        required("filename", sa.Text),
        required("purpose", sa.Text),
        required("size_bytes", sa.BigInteger),
        required("created_at", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger),
        required("published", sa.Boolean),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_files"),
    )
    op.create_index("ix_files_tenant_created_at_id", "files", ["tenant", "created_at", "id"])
    op.create_index("ix_files_expires_at", "files", ["expires_at"], **where("expires_at IS NOT NULL"))
    op.create_index("ix_files_begun", "files", ["created_at"], **where("NOT published"))
    op.create_table(
        "file_pieces",
        required("tenant", sa.Text),
        required("file_id", sa.Text),
        required("n", sa.BigInteger, autoincrement=False),
        required("body", sa.LargeBinary),
        part_of("files", "file_id", "fk_file_pieces_tenant_file_id"),
        sa.PrimaryKeyConstraint("tenant", "file_id", "n", name="pk_file_pieces"),
    )


def stores() -> None:
    op.create_table(
        "vector_stores",
        required("tenant", sa.Text),
        required("id", sa.Text),
        required("kind", sa.Text),
        sa.Column("conversation_id", sa.Text),
        required("name", sa.Text),
        sa.Column("description", sa.Text),
        required("metadata", JSON),
        required("created_at", sa.BigInteger),
        required("last_active_at", sa.BigInteger),
        sa.Column("expires_anchor", sa.Text),
        sa.Column("expires_seconds", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger),
        required("embedding_model", sa.Text),
        required("embedding_digest", sa.Text),
        required("embedding_dimensions", sa.BigInteger),
        required("embedding_window_tokens", sa.BigInteger),
        required("generation", sa.BigInteger),
        required("head", sa.BigInteger),
        required("floor", sa.BigInteger),
        sa.CheckConstraint("(kind = 'memory') = (conversation_id IS NOT NULL)", name="ck_vector_stores_kind"),
        part_of("conversations", "conversation_id", "fk_vector_stores_tenant_conversation_id"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_vector_stores"),
        sa.UniqueConstraint("tenant", "conversation_id", name="uq_vector_stores_tenant_conversation_id"),
    )
    op.create_index(
        "ix_vector_stores_tenant_kind_created_at_id", "vector_stores", ["tenant", "kind", "created_at", "id"]
    )
    op.create_index("ix_vector_stores_expires_at", "vector_stores", ["expires_at"], **where("expires_at IS NOT NULL"))
    op.create_table(
        "vector_store_file_batches",
        required("tenant", sa.Text),
        required("id", sa.Text),
        required("store_id", sa.Text),
        required("created_at", sa.BigInteger),
        required("cancelled", sa.Boolean),
        part_of("vector_stores", "store_id", "fk_vector_store_file_batches_tenant_store_id"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_vector_store_file_batches"),
    )
    op.create_index("ix_vector_store_file_batches_tenant_store_id", "vector_store_file_batches", ["tenant", "store_id"])


def store_files() -> None:
    name = "vector_store_files"
    op.create_table(
        name,
        required("tenant", sa.Text),
        required("store_id", sa.Text),
        required("file_id", sa.Text),
        required("created_at", sa.BigInteger),
        required("status", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        required("attributes", JSON),
        required("max_chunk_tokens", sa.BigInteger),
        required("chunk_overlap_tokens", sa.BigInteger),
        sa.Column("batch_id", sa.Text),
        required("usage_bytes", sa.BigInteger),
        sa.Column("first_seq", sa.BigInteger),
        sa.Column("last_seq", sa.BigInteger),
        required("attempts", sa.BigInteger),
        sa.Column("owner", sa.Text),
        sa.Column("ticket", sa.BigInteger),
        sa.Column("lease_until", sa.Double),
        sa.Column("claimed_at", sa.Double),
        sa.CheckConstraint("(first_seq IS NULL) = (last_seq IS NULL)", name="ck_vector_store_files_range"),
        sa.CheckConstraint("owner IS NULL OR status = 'in_progress'", name="ck_vector_store_files_owned"),
        part_of("vector_stores", "store_id", "fk_vector_store_files_tenant_store_id"),
        part_of("files", "file_id", "fk_vector_store_files_tenant_file_id"),
        sa.PrimaryKeyConstraint("tenant", "store_id", "file_id", name="pk_vector_store_files"),
    )
    for columns in (
        ["tenant", "file_id"],
        ["tenant", "store_id", "created_at", "file_id"],
        ["tenant", "store_id", "status", "usage_bytes"],
        ["tenant", "batch_id", "status"],
        ["tenant", "claimed_at"],
    ):
        op.create_index(f"ix_{name}_{'_'.join(columns)}", name, columns)
    op.create_index("ix_vector_store_files_owner", name, ["owner"], **where("owner IS NOT NULL"))
    op.create_index(
        "ix_vector_store_files_waiting",
        name,
        ["tenant", "created_at", "store_id", "file_id"],
        **where("status = 'in_progress'"),
    )


def logs() -> None:
    op.create_table(
        "chunks",
        required("tenant", sa.Text),
        required("store_id", sa.Text),
        required("seq", sa.BigInteger, autoincrement=False),
        sa.Column("file_id", sa.Text),
        required("start", sa.BigInteger),
        required("end", sa.BigInteger),
        required("body", sa.LargeBinary),
        part_of("vector_stores", "store_id", "fk_chunks_tenant_store_id"),
        sa.ForeignKeyConstraint(
            ["tenant", "store_id", "file_id"],
            ["vector_store_files.tenant", "vector_store_files.store_id", "vector_store_files.file_id"],
            name="fk_chunks_tenant_store_id_file_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "store_id", "seq", name="pk_chunks"),
    )
    op.create_index("ix_chunks_tenant_store_id_file_id_seq", "chunks", ["tenant", "store_id", "file_id", "seq"])
    op.create_table(
        "chunk_vectors",
        required("tenant", sa.Text),
        required("store_id", sa.Text),
        required("seq", sa.BigInteger, autoincrement=False),
        required("generation", sa.BigInteger, autoincrement=False),
        required("vectors", sa.LargeBinary),
        sa.ForeignKeyConstraint(
            ["tenant", "store_id", "seq"],
            ["chunks.tenant", "chunks.store_id", "chunks.seq"],
            name="fk_chunk_vectors_tenant_store_id_seq",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "store_id", "seq", "generation", name="pk_chunk_vectors"),
    )
    op.create_table(
        "removals",
        required("tenant", sa.Text),
        required("store_id", sa.Text),
        required("seq", sa.BigInteger, autoincrement=False),
        required("first", sa.BigInteger),
        required("last", sa.BigInteger),
        part_of("vector_stores", "store_id", "fk_removals_tenant_store_id"),
        sa.PrimaryKeyConstraint("tenant", "store_id", "seq", name="pk_removals"),
    )
