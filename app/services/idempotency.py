"""Answers remembered by `Idempotency-Key`, in the transaction of the change: both are kept, or neither."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.tables import Idempotency
from app.errors import InvalidRequest


@dataclass(frozen=True)
class Answer:
    """What a POST answered."""

    status: int
    body: dict[str, Any]
    location: str | None = None
    replayed: bool = False


def fingerprint(*parts: Any) -> str:
    """One digest of a whole request: method, path and normalised body."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def reserve(session: Session, workspace_id: str, key: str, print_: str, expires_s: float) -> Answer | None:
    """None for the first request with the key, which then calls `keep`; for later ones the answer that was kept.

    A second request with the same key waits for the first. Raises InvalidRequest where the first asked for
    something else.
    """
    now = datetime.now(UTC)
    session.execute(delete(Idempotency).where(Idempotency.created_at < now - timedelta(seconds=expires_s)))
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    inserted = session.execute(
        insert(Idempotency)
        .values(workspace_id=workspace_id, key=key, fingerprint=print_, status=0, body={}, created_at=now)
        .on_conflict_do_nothing()
        .returning(Idempotency.id)
    ).scalar()
    if inserted is not None:
        return None
    first = _find(session, workspace_id, key)
    if first.fingerprint != print_:
        raise InvalidRequest(
            "this Idempotency-Key was used for another request; take a new key for a new request",
            errors=[
                {"pointer": "/Idempotency-Key", "in": "header", "message": "used before for another request"}
            ],
        )
    return Answer(first.status, first.body, first.location, replayed=True)


def keep(session: Session, workspace_id: str, key: str, answer: Answer) -> None:
    record = _find(session, workspace_id, key)
    record.status, record.body, record.location = answer.status, answer.body, answer.location


def _find(session: Session, workspace_id: str, key: str) -> Idempotency:
    query = select(Idempotency).where(Idempotency.workspace_id == workspace_id, Idempotency.key == key)
    return session.scalars(query).one()
