"""pretrainings on pictures without labels

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXED = ("dataset_id", "start_checkpoint_id", "encoder_checkpoint_id", "trained_checkpoint_id")


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "pretraining",
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
        sa.Column("start_checkpoint_id", sa.String(length=48), nullable=True),
        sa.Column("encoder_checkpoint_id", sa.String(length=48), nullable=True),
        sa.Column("plan", json, nullable=True),
        sa.Column("progress", json, nullable=True),
        sa.Column("curves", json, nullable=True),
        sa.Column("result", json, nullable=True),
        sa.Column("pictures", json, nullable=True),
        sa.Column("plots", json, nullable=True),
        sa.Column("state_sha256", sa.String(length=64), nullable=True),
        sa.Column("state_iteration", sa.Integer(), nullable=True),
        sa.Column("trained_checkpoint_id", sa.String(length=48), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name=op.f("fk_pretraining_workspace_id")),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_pretraining_dataset_id")),
        sa.ForeignKeyConstraint(
            ["start_checkpoint_id"], ["checkpoint.id"], name=op.f("fk_pretraining_start_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(
            ["encoder_checkpoint_id"], ["checkpoint.id"], name=op.f("fk_pretraining_encoder_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(
            ["trained_checkpoint_id"], ["checkpoint.id"], name=op.f("fk_pretraining_trained_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(["state_sha256"], ["blob.sha256"], name=op.f("fk_pretraining_state_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pretraining")),
    )
    with op.batch_alter_table("pretraining", schema=None) as batch_op:
        batch_op.create_index("ix_pretraining_listing", ["workspace_id", "id"], unique=False)
        for column in INDEXED:
            batch_op.create_index(batch_op.f(f"ix_pretraining_{column}"), [column], unique=False)


def downgrade() -> None:
    op.drop_table("pretraining")
