"""which step of a training a candidate's costs stand on

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # not in batches: SQLite would make the table anew, to which others refer
    op.add_column("candidate", sa.Column("training_key", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_candidate_training_key"), "candidate", ["training_key"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute("UPDATE candidate SET training_key = json_extract(cost, '$.training.key')")
    else:
        op.execute("UPDATE candidate SET training_key = cost #>> '{training,key}'")


def downgrade() -> None:
    op.drop_index(op.f("ix_candidate_training_key"), "candidate")
    op.drop_column("candidate", "training_key")
