"""indexes by which workspaces take turns

Revision: 0008, after 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_job_turn", "job", ["queue", "state", "workspace_id", "id"])
    op.create_index("ix_job_served", "job", ["workspace_id", "queue", "claimed_at"])


def downgrade() -> None:
    op.drop_index("ix_job_served", "job")
    op.drop_index("ix_job_turn", "job")
