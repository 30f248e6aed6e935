"""pseudo-labellings, and the lineage of the datasets that they make

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

DATASETS = ("dataset_id", "truth_dataset_id", "made_dataset_id")
CHECKPOINTS = ("checkpoint_id", "trained_checkpoint_id")


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    moment = sa.DateTime(timezone=True)
    op.add_column("dataset", sa.Column("lineage", json, nullable=True))
    op.create_table(
        "pseudo_labelling",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("workspace_id", sa.String(length=48), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=24), nullable=True),
        sa.Column("request", json, nullable=False),
        sa.Column("error", json, nullable=True),
        sa.Column("job_id", sa.String(length=48), nullable=True),
        sa.Column("cancel_requested_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment, nullable=True),
        sa.Column("finished_at", moment, nullable=True),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.String(length=48), nullable=False),
        *(sa.Column(name, sa.String(length=48), nullable=True) for name in (*DATASETS[1:], *CHECKPOINTS)),
        *(
            sa.Column(name, json, nullable=True)
            for name in ("progress", "curves", "result", "pictures", "plots", "review")
        ),
        sa.Column("state_sha256", sa.String(length=64), nullable=True),
        sa.Column("state_iteration", sa.Integer(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        _names("workspace_id", "workspace.id"),
        _names("state_sha256", "blob.sha256"),
        *(_names(column, "dataset.id") for column in DATASETS),
        *(_names(column, "checkpoint.id") for column in CHECKPOINTS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pseudo_labelling")),
    )
    with op.batch_alter_table("pseudo_labelling", schema=None) as batch_op:
        batch_op.create_index("ix_pseudo_labelling_listing", ["workspace_id", "id"], unique=False)
        for column in (*DATASETS, *CHECKPOINTS):
            batch_op.create_index(batch_op.f(f"ix_pseudo_labelling_{column}"), [column], unique=False)


def downgrade() -> None:
    op.drop_table("pseudo_labelling")
    # not as a batch: SQLite would make the table anew, which others refer to
    op.drop_column("dataset", "lineage")


def _names(column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=op.f(f"fk_pseudo_labelling_{column}"))
