"""Alembic's entry: runs revisions on the connection that app.db.migrate hands over, or on the database of the settings."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection

from app.db.engine import make_engine
from app.db.tables import Base
from app.db.types import UtcDateTime
from app.settings import get_settings


def plain_types(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write SQLAlchemy's own types into revisions: ours may change, a revision may not."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JSON):
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
        # SQLite cannot alter most things in place; batches copy the table
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        render_item=plain_types,
    )
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    with make_engine(get_settings().resolved_database_url).begin() as own:
        run(own)
