"""The tables. Rows here are storage, not the domain: the repositories turn one into the other.

Every table but `tenants` has the tenant in its key, and foreign keys hold both, so that no row can lead to another
tenant's. Times are Unix seconds. What belongs to a conversation or a response goes with it. Files, vector stores and
memories: frontend/db/document_models.py.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = JSON().with_variant(JSONB(), "postgresql")
Serial = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite counts a primary key up only if its type is INTEGER."""
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Constraints have names, so that a migration can drop them on every database."""


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {  # noqa: RUF012  # as SQLAlchemy declares it
        str: Text(),
        int: BigInteger(),
        float: Double(),
        bytes: LargeBinary(),
        dict[str, Any]: Json,
        list[str]: Json,
    }


def part_of(parent: str, column: str) -> ForeignKeyConstraint:
    """The row goes when its `parent` of the same tenant goes; nothing is held where `column` is NULL."""
    return ForeignKeyConstraint(["tenant", column], [f"{parent}.tenant", f"{parent}.id"], ondelete="CASCADE")


def partial(name: str, column: str, condition: str, *more: str) -> Index:
    """An index of the rows that meet `condition`, by `column` and `more`."""
    return Index(name, column, *more, sqlite_where=text(condition), postgresql_where=text(condition))


class TenantRow(Base):
    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]


class ApiKeyRow(Base):
    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "tenant"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name", ondelete="CASCADE"))
    name: Mapped[str]
    digest: Mapped[bytes]
    scopes: Mapped[list[str]]
    created_at: Mapped[int]
    created_by: Mapped[str | None]
    profile: Mapped[str | None]
    limits: Mapped[dict[str, Any]]
    expires_at: Mapped[int | None]
    revoked_at: Mapped[int | None]
    last_used_at: Mapped[int | None]
    replaced_by: Mapped[str | None]


class AuditRow(Base):
    """Triggers refuse to change and to delete (migration 0003). No foreign key: it outlives what it tells of."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "tenant", "id"),)

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    at: Mapped[int]
    actor: Mapped[str]
    action: Mapped[str]
    tenant: Mapped[str]
    target: Mapped[str]
    request_id: Mapped[str | None]
    client: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class IdempotencyRow(Base):
    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "expires_at"),)

    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    owner: Mapped[str]
    lease_until: Mapped[float]
    created_at: Mapped[int]
    expires_at: Mapped[int]
    status: Mapped[int | None]
    content_type: Mapped[str | None]
    body: Mapped[bytes | None]


class ConversationRow(Base):
    __tablename__ = "conversations"
    __table_args__ = (
        Index(None, "tenant", "created_at", "id"),
        partial("ix_conversations_expires_at", "expires_at", "expires_at IS NOT NULL"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[int]
    last_active_at: Mapped[int]
    expires_anchor: Mapped[str | None]
    expires_seconds: Mapped[int | None]
    expires_at: Mapped[int | None]
    """What the two give, kept with every change of `last_active_at`."""
    context: Mapped[dict[str, Any]]
    profile: Mapped[str | None]
    trim_upto: Mapped[int]
    trim_summary: Mapped[str | None]
    trim_summarised_upto: Mapped[int]
    head: Mapped[int]
    version: Mapped[int]
    item_count: Mapped[int]
    """Items that are there: `head` less those that were deleted."""


class LabelRow(Base):
    """An entry of its owner's metadata, by which the owner is found (frontend/db/labels.py)."""

    __abstract__ = True

    tenant: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[bytes] = mapped_column(primary_key=True)
    created_at: Mapped[int] = mapped_column(primary_key=True)
    """The owner's, which never changes."""
    id: Mapped[str] = mapped_column(primary_key=True)
    """The owner's."""


class ConversationLabelRow(LabelRow):
    __tablename__ = "conversation_labels"
    __table_args__ = (part_of("conversations", "id"), Index(None, "tenant", "id"))


class ItemRow(Base):
    """An item of a conversation (`conversation_id`, `seq`), of a response (`response_id`, `position`), or of both."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("tenant", "conversation_id", "seq"),
        Index(None, "tenant", "response_id", "is_output", "position"),
        Index(None, "tenant", "id"),
        part_of("conversations", "conversation_id"),
        part_of("responses", "response_id"),
        CheckConstraint("(conversation_id IS NULL) = (seq IS NULL)", name="numbered"),
        CheckConstraint("(response_id IS NULL) = (position IS NULL)", name="placed"),
        CheckConstraint("conversation_id IS NOT NULL OR response_id IS NOT NULL", name="owned"),
    )

    row: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    """Not `id`: a client may send an output back as input, and both rows bear its id."""
    tenant: Mapped[str]
    id: Mapped[str]
    conversation_id: Mapped[str | None]
    seq: Mapped[int | None]
    response_id: Mapped[str | None]
    is_output: Mapped[bool]
    position: Mapped[int | None]
    """Among the response's input, or its output, from 1 on."""
    created_at: Mapped[int]
    body: Mapped[bytes]
    """frontend/db/codec.py"""


class ResponseRow(Base):
    __tablename__ = "responses"
    __table_args__ = (
        part_of("conversations", "conversation_id"),
        Index(None, "tenant", "conversation_id"),
        partial("ix_responses_completed_at", "completed_at", "has_events"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    status: Mapped[str]
    parameters: Mapped[bytes]
    created_at: Mapped[int]
    completed_at: Mapped[int | None]
    previous_response_id: Mapped[str | None]
    """No foreign key: the one before may be deleted, and then the chain ends in NotFound."""
    conversation_id: Mapped[str | None]
    background: Mapped[bool]
    dropped: Mapped[int]
    degraded: Mapped[str | None]
    """Names with a comma between them."""
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    incomplete_reason: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    input_count: Mapped[int]
    has_events: Mapped[bool]


class EventBatchRow(Base):
    """Events `first` to `last` of a response, as they were handed over together."""

    __tablename__ = "response_events"
    __table_args__ = (part_of("responses", "response_id"),)

    tenant: Mapped[str] = mapped_column(primary_key=True)
    response_id: Mapped[str] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int]
    body: Mapped[bytes]


class TurnRow(Base):
    __tablename__ = "turns"
    __table_args__ = (
        UniqueConstraint("tenant", "conversation_id"),
        Index(None, "owner"),
        part_of("conversations", "conversation_id"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str | None]
    owner: Mapped[str]
    lease_until: Mapped[float]


class SessionRow(Base):
    __tablename__ = "sessions"
    __table_args__ = (
        part_of("conversations", "conversation_id"),
        Index(None, "tenant", "conversation_id"),
        Index(None, "ends_at"),
    )

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[int]
    last_used_at: Mapped[int]
    idle_timeout_s: Mapped[int]
    expires_at: Mapped[int]
    ends_at: Mapped[int]
    """The earlier of its absolute end and its idle one."""


class CompletionRow(Base):
    __tablename__ = "chat_completions"
    __table_args__ = (Index(None, "tenant", "created_at", "id"),)

    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    created_at: Mapped[int]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    body: Mapped[bytes]
    messages: Mapped[bytes]


class CompletionLabelRow(LabelRow):
    __tablename__ = "chat_completion_labels"
    __table_args__ = (part_of("chat_completions", "id"), Index(None, "tenant", "id"))
