"""what a step of a training costs here, and a ranking's picture of accuracy against time

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "measured_step",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("step", json, nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_measured_step")),
    )
    # written out: SQLite would make the table anew, to which others refer
    op.execute(
        "ALTER TABLE ranking ADD COLUMN cost_plot_sha256 VARCHAR(64) "
        "CONSTRAINT fk_ranking_cost_plot_sha256 REFERENCES blob (sha256)"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE ranking DROP COLUMN cost_plot_sha256")
    op.drop_table("measured_step")
