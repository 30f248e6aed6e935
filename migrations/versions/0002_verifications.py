"""verifications, the subsets they see, searches and studies

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OWNERS = ("search", "study")


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column("checkpoint", sa.Column("plain", json, nullable=True))
    op.create_table(
        "study",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("workspace_id", sa.String(length=48), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=24), nullable=True),
        sa.Column("request", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("result", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("files", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("error", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("job_id", sa.String(length=48), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name=op.f("fk_study_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
    )
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.create_index("ix_study_listing", ["workspace_id", "id"], unique=False)

    op.create_table(
        "search",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("workspace_id", sa.String(length=48), nullable=False),
        sa.Column("dataset_id", sa.String(length=48), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=24), nullable=True),
        sa.Column("request", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("rungs", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("result", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("plot_sha256", sa.String(length=64), nullable=True),
        sa.Column("error", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("job_id", sa.String(length=48), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_search_dataset_id")),
        sa.ForeignKeyConstraint(["plot_sha256"], ["blob.sha256"], name=op.f("fk_search_plot_sha256")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name=op.f("fk_search_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search")),
    )
    with op.batch_alter_table("search", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_search_dataset_id"), ["dataset_id"], unique=False)
        batch_op.create_index("ix_search_listing", ["workspace_id", "id"], unique=False)

    op.create_table(
        "subset",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("workspace_id", sa.String(length=48), nullable=False),
        sa.Column("dataset_id", sa.String(length=48), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("images", sa.Integer(), nullable=True),
        sa.Column("image_ids", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("annotation_ids", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("coverage", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_subset_dataset_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name=op.f("fk_subset_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subset")),
        sa.UniqueConstraint("dataset_id", "key", name=op.f("uq_subset_dataset_id_key")),
    )
    with op.batch_alter_table("subset", schema=None) as batch_op:
        batch_op.create_index("ix_subset_listing", ["workspace_id", "id"], unique=False)

    op.create_table(
        "verification",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("workspace_id", sa.String(length=48), nullable=False),
        sa.Column("dataset_id", sa.String(length=48), nullable=False),
        sa.Column("checkpoint_id", sa.String(length=48), nullable=False),
        sa.Column("subset_id", sa.String(length=48), nullable=False),
        sa.Column("ranking_id", sa.String(length=48), nullable=True),
        sa.Column("search_id", sa.String(length=48), nullable=True),
        sa.Column("study_id", sa.String(length=48), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=24), nullable=True),
        sa.Column("request", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("terms", sa.String(length=64), nullable=False),
        sa.Column("stop_at", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("plan", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("progress", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("curves", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("result", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("map", sa.Double(), nullable=True),
        sa.Column("ap50", sa.Double(), nullable=True),
        sa.Column("split", sa.String(length=8), nullable=True),
        sa.Column("pictures", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("plots", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("state_sha256", sa.String(length=64), nullable=True),
        sa.Column("state_iteration", sa.Integer(), nullable=True),
        sa.Column("trained_checkpoint_id", sa.String(length=48), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("error", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("job_id", sa.String(length=48), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(ranking_id IS NULL OR search_id IS NULL) AND (ranking_id IS NULL OR study_id IS NULL) AND (search_id IS NULL OR study_id IS NULL)",
            name=op.f("ck_verification_one_owner"),
        ),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoint.id"], name=op.f("fk_verification_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_verification_dataset_id")),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_verification_ranking_id")),
        sa.ForeignKeyConstraint(["search_id"], ["search.id"], name=op.f("fk_verification_search_id")),
        sa.ForeignKeyConstraint(["state_sha256"], ["blob.sha256"], name=op.f("fk_verification_state_sha256")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_verification_study_id")),
        sa.ForeignKeyConstraint(["subset_id"], ["subset.id"], name=op.f("fk_verification_subset_id")),
        sa.ForeignKeyConstraint(
            ["trained_checkpoint_id"], ["checkpoint.id"], name=op.f("fk_verification_trained_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspace.id"], name=op.f("fk_verification_workspace_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verification")),
    )
    with op.batch_alter_table("verification", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_verification_checkpoint_id"), ["checkpoint_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_verification_dataset_id"), ["dataset_id"], unique=False)
        batch_op.create_index("ix_verification_listing", ["workspace_id", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_verification_ranking_id"), ["ranking_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_verification_search_id"), ["search_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_verification_study_id"), ["study_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_verification_subset_id"), ["subset_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_verification_trained_checkpoint_id"), ["trained_checkpoint_id"], unique=False
        )

    # as SQL, because both databases take it in place: a batch would copy the table, which others refer to
    for owner in OWNERS:
        op.execute(
            f"ALTER TABLE ranking ADD COLUMN {owner}_id VARCHAR(48) "
            f"CONSTRAINT fk_ranking_{owner}_id REFERENCES {owner} (id)"
        )
        op.create_index(f"ix_ranking_{owner}_id", "ranking", [f"{owner}_id"])
    op.execute(
        "ALTER TABLE ranking ADD COLUMN map_plot_sha256 VARCHAR(64) "
        "CONSTRAINT fk_ranking_map_plot_sha256 REFERENCES blob (sha256)"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE ranking DROP COLUMN map_plot_sha256")
    for owner in OWNERS:
        op.drop_index(f"ix_ranking_{owner}_id", "ranking")
        op.execute(f"ALTER TABLE ranking DROP COLUMN {owner}_id")
    with op.batch_alter_table("verification", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_verification_trained_checkpoint_id"))
        batch_op.drop_index(batch_op.f("ix_verification_subset_id"))
        batch_op.drop_index(batch_op.f("ix_verification_study_id"))
        batch_op.drop_index(batch_op.f("ix_verification_search_id"))
        batch_op.drop_index(batch_op.f("ix_verification_ranking_id"))
        batch_op.drop_index("ix_verification_listing")
        batch_op.drop_index(batch_op.f("ix_verification_dataset_id"))
        batch_op.drop_index(batch_op.f("ix_verification_checkpoint_id"))

    op.drop_table("verification")
    with op.batch_alter_table("subset", schema=None) as batch_op:
        batch_op.drop_index("ix_subset_listing")

    op.drop_table("subset")
    with op.batch_alter_table("search", schema=None) as batch_op:
        batch_op.drop_index("ix_search_listing")
        batch_op.drop_index(batch_op.f("ix_search_dataset_id"))

    op.drop_table("search")
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.drop_index("ix_study_listing")

    op.drop_table("study")
    op.drop_column("checkpoint", "plain")
