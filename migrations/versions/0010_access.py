"""what a key may do and until when, who changed what, rates, quotas and priorities

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # keys of before may go on doing what they did
    op.add_column("api_key", sa.Column("scope", sa.String(16), nullable=False, server_default="write"))
    op.add_column("api_key", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "audit",
        sa.Column("id", sa.String(48), nullable=False),
        sa.Column("workspace_id", sa.String(48), nullable=False),
        sa.Column("key_id", sa.String(48), nullable=True),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("resource", sa.String(200), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name=op.f("fk_audit_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_listing", "audit", ["workspace_id", "id"])
    op.create_index(op.f("ix_audit_key_id"), "audit", ["key_id"])
    op.create_index(op.f("ix_audit_created_at"), "audit", ["created_at"])
    op.create_table(
        "rate_count",
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("window", sa.Integer(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_rate_count")),
    )
    op.add_column("workspace", sa.Column("max_bytes", sa.BigInteger(), nullable=True))
    op.add_column("workspace", sa.Column("max_queued_jobs", sa.Integer(), nullable=True))
    op.add_column("workspace", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.drop_index("ix_job_turn", "job")
    op.create_index("ix_job_turn", "job", ["queue", "state", "workspace_id", "priority", "id"])


def downgrade() -> None:
    op.drop_index("ix_job_turn", "job")
    op.drop_column("job", "priority")
    op.create_index("ix_job_turn", "job", ["queue", "state", "workspace_id", "id"])
    for name in ("priority", "max_queued_jobs", "max_bytes"):
        op.drop_column("workspace", name)
    op.drop_table("rate_count")
    op.drop_table("audit")
    # there every key writes, for ever: one that has an end, or may less, would open what it must not
    op.execute(
        "UPDATE api_key SET revoked_at = COALESCE(revoked_at, expires_at, created_at) "
        "WHERE expires_at IS NOT NULL OR scope IN ('read', 'metrics')"
    )
    op.drop_column("api_key", "expires_at")
    op.drop_column("api_key", "scope")
