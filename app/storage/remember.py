"""The record of a file in the store."""

from datetime import UTC, datetime

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.tables import Blob
from app.storage.blobs import Stored


def remember_blob(session: Session, stored: Stored, media_type: str) -> str:
    """A row for a file in the store; the same content twice is one row, made young again. Answers its digest."""
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    now = datetime.now(UTC)
    session.execute(
        insert(Blob)
        .values(sha256=stored.sha256, size_bytes=stored.size_bytes, media_type=media_type, created_at=now)
        .on_conflict_do_update(index_elements=[Blob.sha256], set_={"created_at": now})
    )
    return stored.sha256
