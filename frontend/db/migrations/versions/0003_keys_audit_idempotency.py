"""Keys with limits and a last use, the audit log, and replies by Idempotency-Key."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FORMER_SCOPES = '["chat"]'
SCOPES = '["chat", "conversations", "models", "retrieval:read", "retrieval:write"]'
"""What every key could do before scopes were enforced."""


def required(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("created_by", sa.Text))
    op.add_column("api_keys", required("limits", JSON, server_default="{}"))
    op.add_column("api_keys", sa.Column("last_used_at", sa.BigInteger))
    op.add_column("api_keys", sa.Column("replaced_by", sa.Text))
    keys = sa.table("api_keys", sa.column("scopes", sa.Text))
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if is_sqlite:
        op.execute(sa.update(keys).values(scopes=SCOPES).where(keys.c.scopes == FORMER_SCOPES))
    else:
        op.execute(f"UPDATE api_keys SET scopes = '{SCOPES}'::jsonb WHERE scopes = '{FORMER_SCOPES}'::jsonb")  # noqa: S608
    audit(is_sqlite)
    op.create_table(
        "idempotency_keys",
        required("tenant", sa.Text),
        required("key", sa.Text),
        required("fingerprint", sa.LargeBinary),
        required("owner", sa.Text),
        required("lease_until", sa.Double),
        required("created_at", sa.BigInteger),
        required("expires_at", sa.BigInteger),
        sa.Column("status", sa.BigInteger),
        sa.Column("content_type", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])


def audit(is_sqlite: bool) -> None:
    op.create_table(
        "audit_log",
        required("id", SERIAL, autoincrement=True),
        required("at", sa.BigInteger),
        required("actor", sa.Text),
        required("action", sa.Text),
        required("tenant", sa.Text),
        required("target", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("client", sa.Text),
        required("detail", JSON),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_tenant_id", "audit_log", ["tenant", "id"])
    if is_sqlite:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_log_no_{verb.lower()} BEFORE {verb} ON audit_log"
                " BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_log_only_grows() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_log_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_log_only_grows()"
    )
