"""The tables of files, vector stores and their logs; the rules of frontend/db/models.py hold here too.

Whoever locks several of these rows goes from above to below, so that nobody waits in a circle: tenant, files, then store by
store the store's row and those of its files (by tenant, store, file); a conversation before its memory. A claim takes only
rows that are free.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from frontend.db.models import Base, part_of, partial


class FileRow(Base):
    """Nobody sees it before it is published."""

    __tablename__ = "files"
    __table_args__ = (
        Index(None, "tenant", "created_at", "id"),
        partial("ix_files_expires_at", "expires_at", "expires_at IS NOT NULL"),
        partial("ix_files_begun", "created_at", "NOT published"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    size_bytes: Mapped[int]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    published: Mapped[bool]


class FilePieceRow(Base):
    __tablename__ = "file_pieces"
    __table_args__ = (part_of("files", "file_id"),)

    tenant: Mapped[str] = mapped_column(primary_key=True)
    file_id: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[bytes]


class VectorStoreRow(Base):
    """A store of documents, or the memory of one conversation."""

    __tablename__ = "vector_stores"
    __table_args__ = (
        part_of("conversations", "conversation_id"),
        UniqueConstraint("tenant", "conversation_id"),
        CheckConstraint("(kind = 'memory') = (conversation_id IS NOT NULL)", name="kind"),
        Index(None, "tenant", "kind", "created_at", "id"),
        partial("ix_vector_stores_expires_at", "expires_at", "expires_at IS NOT NULL"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    conversation_id: Mapped[str | None]
    name: Mapped[str]
    description: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[int]
    last_active_at: Mapped[int]
    expires_anchor: Mapped[str | None]
    expires_seconds: Mapped[int | None]
    expires_at: Mapped[int | None]
    """What the two give, kept with every change of `last_active_at`."""
    embedding_model: Mapped[str]
    embedding_digest: Mapped[str]
    embedding_dimensions: Mapped[int]
    embedding_window_tokens: Mapped[int]
    generation: Mapped[int]
    head: Mapped[int]
    """The newest number of its log. Raised by the transaction that takes the numbers, so that they follow commits."""
    floor: Mapped[int]


class FileBatchRow(Base):
    __tablename__ = "vector_store_file_batches"
    __table_args__ = (part_of("vector_stores", "store_id"), Index(None, "tenant", "store_id"))

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    store_id: Mapped[str]
    created_at: Mapped[int]
    cancelled: Mapped[bool]


class StoreFileRow(Base):
    """A file in a store: a job while it is `in_progress`, then the range `first_seq` to `last_seq` of the store's log."""

    __tablename__ = "vector_store_files"
    __table_args__ = (
        part_of("vector_stores", "store_id"),
        part_of("files", "file_id"),
        Index(None, "tenant", "file_id"),
        Index(None, "tenant", "store_id", "created_at", "file_id"),
        Index(None, "tenant", "store_id", "status", "usage_bytes"),
        Index(None, "tenant", "batch_id", "status"),
        Index(None, "tenant", "claimed_at"),
        partial("ix_vector_store_files_owner", "owner", "owner IS NOT NULL"),
        partial(
            "ix_vector_store_files_waiting", "tenant", "status = 'in_progress'", "created_at", "store_id", "file_id"
        ),
        CheckConstraint("(first_seq IS NULL) = (last_seq IS NULL)", name="range"),
        CheckConstraint("owner IS NULL OR status = 'in_progress'", name="owned"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    store_id: Mapped[str] = mapped_column(primary_key=True)
    file_id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]
    status: Mapped[str]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    attributes: Mapped[dict[str, Any]]
    max_chunk_tokens: Mapped[int]
    chunk_overlap_tokens: Mapped[int]
    batch_id: Mapped[str | None]
    """No foreign key: batches go with their store, as these rows do."""
    usage_bytes: Mapped[int]
    first_seq: Mapped[int | None]
    """NULL until it is completed, and for a file without text."""
    last_seq: Mapped[int | None]
    attempts: Mapped[int]
    owner: Mapped[str | None]
    ticket: Mapped[int | None]
    """A random number for each claim: who was slower than its lease, or works on what was put in anew, has another one."""
    lease_until: Mapped[float | None]
    claimed_at: Mapped[float | None]
    """The last time, kept for fairness: the tenant that was served longest ago is next."""


class ChunkRow(Base):
    __tablename__ = "chunks"
    __table_args__ = (
        part_of("vector_stores", "store_id"),
        ForeignKeyConstraint(
            ["tenant", "store_id", "file_id"],
            ["vector_store_files.tenant", "vector_store_files.store_id", "vector_store_files.file_id"],
            ondelete="CASCADE",
        ),
        Index(None, "tenant", "store_id", "file_id", "seq"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    store_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    file_id: Mapped[str | None]
    start: Mapped[int]
    end: Mapped[int]
    body: Mapped[bytes]
    """The text in UTF-8: PostgreSQL's own texts hold no NUL."""


class ChunkVectorRow(Base):
    """The vectors of a chunk, as one generation of its store has them."""

    __tablename__ = "chunk_vectors"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "store_id", "seq"], ["chunks.tenant", "chunks.store_id", "chunks.seq"], ondelete="CASCADE"
        ),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    store_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    vectors: Mapped[bytes]
    """(windows, dim) float16, little-endian, row by row."""


class RemovalRow(Base):
    """An entry of a store's log: the chunks `first` to `last` are gone."""

    __tablename__ = "removals"
    __table_args__ = (part_of("vector_stores", "store_id"),)

    tenant: Mapped[str] = mapped_column(primary_key=True)
    store_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    first: Mapped[int]
    last: Mapped[int]
