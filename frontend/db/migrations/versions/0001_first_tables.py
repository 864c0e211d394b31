"""Tenants, keys, conversations, items, responses and their events, turns, sessions, chat completions."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def required(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def part_of(parent: str, column: str, name: str) -> sa.ForeignKeyConstraint:
    columns = [f"{parent}.tenant", f"{parent}.id"]
    return sa.ForeignKeyConstraint(["tenant", column], columns, name=name, ondelete="CASCADE")


def where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "chat_completions",
        required("tenant", sa.Text),
        required("id", sa.Text),
        required("model", sa.Text),
        required("created_at", sa.BigInteger),
        required("metadata", JSON),
        required("body", sa.LargeBinary),
        required("messages", sa.LargeBinary),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_chat_completions"),
    )
    op.create_index("ix_chat_completions_tenant_created_at_id", "chat_completions", ["tenant", "created_at", "id"])
    op.create_table(
        "conversations",
        required("tenant", sa.Text),
        required("id", sa.Text),
        required("metadata", JSON),
        required("created_at", sa.BigInteger),
        required("last_active_at", sa.BigInteger),
        sa.Column("expires_anchor", sa.Text),
        sa.Column("expires_seconds", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger),
        required("context", JSON),
        sa.Column("profile", sa.Text),
        required("trim_upto", sa.BigInteger),
        sa.Column("trim_summary", sa.Text),
        required("trim_summarised_upto", sa.BigInteger),
        required("head", sa.BigInteger),
        required("version", sa.BigInteger),
        required("item_count", sa.BigInteger),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_expires_at", "conversations", ["expires_at"], **where("expires_at IS NOT NULL"))
    op.create_index("ix_conversations_tenant_created_at_id", "conversations", ["tenant", "created_at", "id"])
    op.create_table(
        "tenants",
        required("name", sa.Text),
        required("created_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
    )
    op.create_table(
        "api_keys",
        required("id", sa.Text),
        required("tenant", sa.Text),
        required("name", sa.Text),
        required("digest", sa.LargeBinary),
        required("scopes", JSON),
        required("created_at", sa.BigInteger),
        sa.Column("profile", sa.Text),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_api_keys_tenant", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_tenant", "api_keys", ["tenant"])
    op.create_table(
        "responses",
        required("tenant", sa.Text),
        required("id", sa.Text),
        required("model", sa.Text),
        required("status", sa.Text),
        required("parameters", sa.LargeBinary),
        required("created_at", sa.BigInteger),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("previous_response_id", sa.Text),
        sa.Column("conversation_id", sa.Text),
        required("background", sa.Boolean),
        required("dropped", sa.BigInteger),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("incomplete_reason", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        required("input_count", sa.BigInteger),
        required("has_events", sa.Boolean),
        part_of("conversations", "conversation_id", "fk_responses_tenant_conversation_id"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_responses"),
    )
    op.create_index("ix_responses_completed_at", "responses", ["completed_at"], **where("has_events"))
    op.create_index("ix_responses_tenant_conversation_id", "responses", ["tenant", "conversation_id"])
    op.create_table(
        "sessions",
        required("tenant", sa.Text),
        required("id", sa.Text),
        required("conversation_id", sa.Text),
        required("metadata", JSON),
        required("created_at", sa.BigInteger),
        required("last_used_at", sa.BigInteger),
        required("idle_timeout_s", sa.BigInteger),
        required("expires_at", sa.BigInteger),
        required("ends_at", sa.BigInteger),
        part_of("conversations", "conversation_id", "fk_sessions_tenant_conversation_id"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_ends_at", "sessions", ["ends_at"])
    op.create_index("ix_sessions_tenant_conversation_id", "sessions", ["tenant", "conversation_id"])
    op.create_table(
        "turns",
        required("tenant", sa.Text),
        required("id", sa.Text),
        sa.Column("conversation_id", sa.Text),
        required("owner", sa.Text),
        required("lease_until", sa.Double),
        part_of("conversations", "conversation_id", "fk_turns_tenant_conversation_id"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_turns"),
        sa.UniqueConstraint("tenant", "conversation_id", name="uq_turns_tenant_conversation_id"),
    )
    op.create_index("ix_turns_owner", "turns", ["owner"])
    op.create_table(
        "items",
        required("row", SERIAL, autoincrement=True),
        required("tenant", sa.Text),
        required("id", sa.Text),
        sa.Column("conversation_id", sa.Text),
        sa.Column("seq", sa.BigInteger),
        sa.Column("response_id", sa.Text),
        required("is_output", sa.Boolean),
        sa.Column("position", sa.BigInteger),
        required("created_at", sa.BigInteger),
        required("body", sa.LargeBinary),
        sa.CheckConstraint("(conversation_id IS NULL) = (seq IS NULL)", name="ck_items_numbered"),
        sa.CheckConstraint("(response_id IS NULL) = (position IS NULL)", name="ck_items_placed"),
        sa.CheckConstraint("conversation_id IS NOT NULL OR response_id IS NOT NULL", name="ck_items_owned"),
        part_of("conversations", "conversation_id", "fk_items_tenant_conversation_id"),
        part_of("responses", "response_id", "fk_items_tenant_response_id"),
        sa.PrimaryKeyConstraint("row", name="pk_items"),
        sa.UniqueConstraint("tenant", "conversation_id", "seq", name="uq_items_tenant_conversation_id_seq"),
    )
    op.create_index("ix_items_tenant_id", "items", ["tenant", "id"])
    op.create_index(
        "ix_items_tenant_response_id_is_output_position", "items", ["tenant", "response_id", "is_output", "position"]
    )
    op.create_table(
        "response_events",
        required("tenant", sa.Text),
        required("response_id", sa.Text),
        required("first", sa.BigInteger, autoincrement=False),
        required("last", sa.BigInteger),
        required("body", sa.LargeBinary),
        part_of("responses", "response_id", "fk_response_events_tenant_response_id"),
        sa.PrimaryKeyConstraint("tenant", "response_id", "first", name="pk_response_events"),
    )
