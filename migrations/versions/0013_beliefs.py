"""what is believed of a ranking's candidates, and whether a workspace's fine-tunings count for it

Revision: 0013, after 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # not in batches: SQLite would make the tables anew, to which others refer
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column("workspace", sa.Column("learns", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column("ranking", sa.Column("belief", json, nullable=True))
    op.add_column("ranking", sa.Column("believed_from", sa.String(length=100), nullable=True))


def downgrade() -> None:
    op.drop_column("ranking", "believed_from")
    op.drop_column("ranking", "belief")
    op.drop_column("workspace", "learns")
