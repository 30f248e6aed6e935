"""Workspaces and the API keys that open them.

A key is `detrank_` + 43 random characters + CRC-32 in hex: the checksum tells a mistyped key from a revoked
one without asking the database. Only its SHA-256 is kept, which is enough for 256 random bits.
"""

import hashlib
import secrets
import zlib
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.access_tables import ApiKey, Scope, Workspace
from app.errors import Conflict, NotFound, Unauthenticated
from app.ids import new_id

DEFAULT_WORKSPACE = "ws_default"
PREFIX = "detrank_"
_RANDOM_CHARACTERS = 43
_LAST_USED_EVERY = timedelta(minutes=10)


def ensure_default(session: Session) -> Workspace:
    """The workspace of the deployment without keys, made where it is missing."""
    return ensure(session, "default", id=DEFAULT_WORKSPACE)


def ensure(session: Session, name: str, *, id: str | None = None) -> Workspace:
    """The workspace of this name, made where it is missing."""
    found = session.scalar(select(Workspace).where(Workspace.name == name))
    if found is None:
        found = Workspace(id=id or new_id("ws"), name=name, created_at=datetime.now(UTC))
        session.add(found)
        session.flush()
    return found


def create_key(
    session: Session,
    workspace_id: str,
    name: str,
    *,
    scope: Scope = Scope.WRITE,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key of the workspace: its record and the key itself, which nobody can read again.

    Raises NotFound where there is no such workspace.
    """
    if session.get(Workspace, workspace_id) is None:
        raise NotFound(f"there is no workspace {workspace_id}")
    body = PREFIX + secrets.token_urlsafe(32)
    key = body + _checksum(body)
    record = ApiKey(
        id=new_id("key"),
        workspace_id=workspace_id,
        name=name,
        prefix=key[: len(PREFIX) + 6],
        hash=_hash(key),
        scope=scope.value,
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )
    session.add(record)
    session.flush()
    return record, key


def list_keys(session: Session, workspace_id: str | None = None) -> list[ApiKey]:
    """Keys, newest first, of one workspace or of all."""
    query = select(ApiKey).order_by(ApiKey.id.desc())
    return list(
        session.scalars(query if workspace_id is None else query.where(ApiKey.workspace_id == workspace_id))
    )


def get_key(session: Session, key_id: str) -> ApiKey:
    """Raises NotFound."""
    # a NUL would be an error of Postgres, and no id of ours has one
    record = session.get(ApiKey, key_id) if key_id.isascii() and key_id.isprintable() else None
    if record is None:
        raise NotFound(f"there is no key {key_id}; `detrank keys list` shows them")
    return record


def rotate_key(session: Session, key_id: str, grace: timedelta) -> tuple[ApiKey, str]:
    """A new key in place of one, which goes on opening for `grace`: time to change it wherever it is used.

    The new one may do the same, and lives as long as the old one was to. Raises NotFound, and Conflict where it no longer
    opens anything.
    """
    old, now = get_key(session, key_id), datetime.now(UTC)
    if old.revoked_at is not None or is_expired(old):
        raise Conflict(f"the key {key_id} opens nothing any more; make a new one")
    lasts = old.expires_at - old.created_at if old.expires_at is not None else None
    new, key = create_key(
        session,
        old.workspace_id,
        old.name,
        scope=Scope(old.scope),
        expires_at=now + lasts if lasts is not None else None,
    )
    old.expires_at = min(old.expires_at or now + grace, now + grace)
    return new, key


def is_expired(record: ApiKey) -> bool:
    return record.expires_at is not None and record.expires_at <= datetime.now(UTC)


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """Closes a key at once and for ever. Raises NotFound, or Conflict where it was closed before."""
    record = get_key(session, key_id)
    if record.revoked_at is not None:
        raise Conflict(f"the key {key_id} was revoked at {record.revoked_at.isoformat()}")
    record.revoked_at = datetime.now(UTC)
    return record


def check_form(key: str) -> None:
    """Raises Unauthenticated for what cannot be a key; asks no database."""
    body, checksum = key[:-8], key[-8:]
    complete = len(key) == len(PREFIX) + _RANDOM_CHARACTERS + 8 and key.isascii()
    if not complete or not key.startswith(PREFIX) or not secrets.compare_digest(checksum, _checksum(body)):
        raise Unauthenticated("this is not a whole detrank key (detrank_...): copy it again, all of it")


def find_key(session: Session, key: str) -> ApiKey:
    """The record of a key in use. Raises Unauthenticated."""
    check_form(key)
    record = session.scalar(select(ApiKey).where(ApiKey.hash == _hash(key)))
    if record is None or record.revoked_at is not None:
        raise Unauthenticated(
            "this key is not known here, or was revoked: ask for a new one (`detrank keys create`)"
        )
    if record.expires_at is not None and is_expired(record):
        raise Unauthenticated(
            f"this key expired at {record.expires_at.isoformat(timespec='seconds')}: ask for a new one (`detrank keys create`)"
        )
    return record


def was_not_seen_lately(record: ApiKey) -> bool:
    """Whether `last_used_at` is worth a write."""
    return record.last_used_at is None or datetime.now(UTC) - record.last_used_at > _LAST_USED_EVERY


def note_use(session: Session, key_id: str) -> None:
    record = session.get(ApiKey, key_id)
    if record is not None:
        record.last_used_at = datetime.now(UTC)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
