"""indexes by which filtered lists are read in their order

Revision: 0012, after 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

FILTERS = {
    "dataset": (
        "state",
        "supervision",
    ),
    "checkpoint": (
        "state",
        "kind",
        "architecture",
    ),
    "ranking": (
        "state",
        "dataset_id",
    ),
    "subset": ("dataset_id",),
    "verification": (
        "state",
        "dataset_id",
        "checkpoint_id",
        "ranking_id",
        "search_id",
        "study_id",
    ),
    "search": (
        "state",
        "dataset_id",
    ),
    "study": ("state",),
    "pretraining": (
        "state",
        "dataset_id",
    ),
    "pseudo_labelling": (
        "state",
        "dataset_id",
    ),
    "job": (
        "state",
        "kind",
        "resource_id",
    ),
}
OF_AUDIT = ("key_id", "action", "resource")


def upgrade() -> None:
    for table, filters in FILTERS.items():
        for name in filters:
            op.create_index(f"ix_{table}_by_{name}", table, ["workspace_id", name, "id"])
    for name in OF_AUDIT:
        op.create_index(f"ix_audit_by_{name}", "audit", [name, "id"])
    op.create_index("ix_delivery_by_state", "delivery", ["webhook_id", "state", "id"])


def downgrade() -> None:
    op.drop_index("ix_delivery_by_state", "delivery")
    for name in OF_AUDIT:
        op.drop_index(f"ix_audit_by_{name}", "audit")
    for table, filters in FILTERS.items():
        for name in filters:
            op.drop_index(f"ix_{table}_by_{name}", table)
