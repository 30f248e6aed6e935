"""shards of candidates, and files of features that all hosts share

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shard",
        sa.Column("ranking_id", sa.String(length=48), nullable=False),
        sa.Column("checkpoint_id", sa.String(length=48), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.String(length=48), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name=op.f("fk_shard_checkpoint_id")),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_shard_ranking_id")),
        sa.PrimaryKeyConstraint("ranking_id", "checkpoint_id", "position", name=op.f("pk_shard")),
    )
    with op.batch_alter_table("shard", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_shard_checkpoint_id"), ["checkpoint_id"], unique=False)
    op.create_table(
        "feature_file",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name=op.f("fk_feature_file_sha256")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_feature_file")),
    )
    with op.batch_alter_table("feature_file", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_feature_file_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_feature_file_used_at"), ["used_at"], unique=False)


def downgrade() -> None:
    op.drop_table("feature_file")
    op.drop_table("shard")
