"""datasets that stay where they are

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dataset", sa.Column("stays_at", sa.Text(), nullable=True))


def downgrade() -> None:
    # not as a batch: SQLite would make the table anew, which others refer to
    op.drop_column("dataset", "stays_at")
