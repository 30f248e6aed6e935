"""Removing what has expired and what nobody refers to: rows, files that were left, blobs."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import CursorResult, Delete, Update, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.base import columns_that_name_blobs
from app.db.engine import Database, database_now
from app.db.tables import (
    AuditEntry,
    Blob,
    Delivery,
    Event,
    FeatureFile,
    Idempotency,
    Pretraining,
    PseudoLabelling,
    Search,
    Upload,
    Verification,
    WorkerRecord,
)
from app.db.webhook_tables import DeliveryState
from app.queue.states import ENDED
from app.settings import Settings
from app.storage.blobs import BlobStore
from worker import retention
from worker.leftovers import OLD_AFTER, leftovers

WORKER_FORGOTTEN_AFTER = timedelta(days=1)
# the last progress stands on the job itself
PROGRESS_KEPT = timedelta(hours=1)

log = logging.getLogger(__name__)


@dataclass
class Gone:
    """How many of one kind went, or would go, and the bytes that this frees."""

    count: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        self.count += 1
        self.size_bytes += size_bytes


def tidy(
    database: Database,
    settings: Settings,
    store: BlobStore,
    *,
    dry_run: bool = False,
    older_than: timedelta = OLD_AFTER,
) -> dict[str, Gone]:
    """One round of all of it; what went, by kind. `dry_run` changes nothing and answers what would go.

    `older_than`: files that were written to since are somebody's who is still at work.
    """
    old = {} if dry_run else retention.retire(database, settings)
    with database.unit_of_work() as session:
        if dry_run:
            old = retention.retired(session, settings)
        gone, expired = forget(session, settings)
        used = set(_referred(session))
        kept_uploads = set(session.scalars(select(Upload.id)))
        if dry_run:
            session.rollback()
    gone = {kind: Gone(count) for kind, count in old.items()} | gone
    gone["upload files"] = Gone()
    for folder, size in _uploads(store).items():
        # one without a row was left by whoever was killed between the two
        if folder not in kept_uploads and (folder in expired or _is_old(store, folder, older_than)):
            gone["upload files"].add(size)
            if not dry_run:
                store.delete_folder(f"uploads/{folder}")
    for kind, found in leftovers(settings, store, older_than).items():
        gone[kind] = Gone(len(found), sum(each.size_bytes for each in found))
        if not dry_run:
            for each in found:
                each.remove()
    if dry_run:
        gone["stored files"] = _would_go(database, store, used, older_than)
    else:
        gone["stored files"] = Gone()
        for _, size in remove_orphaned_blobs(database, store, older_than):
            gone["stored files"].add(size)
    return gone


def forget(session: Session, settings: Settings) -> tuple[dict[str, Gone], list[str]]:
    """Every row that has had its time; how many of each kind, and the ids of uploads."""
    gone, expired = forget_expired(session, settings)
    gone |= {
        "events": forget_history(session, settings),
        "audit entries": forget_audit(session, settings),
        "deliveries": forget_deliveries(session, settings),
        "training states": forget_training_states(session, settings),
        "features": forget_features(session, settings.shared_features_bytes),
    }
    return gone, expired


def forget_expired(session: Session, settings: Settings) -> tuple[dict[str, Gone], list[str]]:
    """Delete expired idempotency keys and uploads, and workers long silent; how many, and the uploads' ids."""
    now = database_now(session)
    kept = timedelta(seconds=settings.idempotency_expires_s)
    keys = _changed(session, delete(Idempotency).where(Idempotency.created_at < now - kept))
    silent = delete(WorkerRecord).where(WorkerRecord.seen_at < now - WORKER_FORGOTTEN_AFTER)
    workers = _changed(session, silent)
    uploads = list(session.scalars(delete(Upload).where(Upload.expires_at < now).returning(Upload.id)))
    return {"idempotency keys": keys, "workers": workers, "uploads": Gone(len(uploads))}, uploads


def forget_history(session: Session, settings: Settings) -> Gone:
    """Delete old events."""
    now = database_now(session)
    progress = delete(Event).where(Event.kind == "progress", Event.created_at < now - PROGRESS_KEPT)
    old = delete(Event).where(Event.created_at < now - timedelta(seconds=settings.events_kept_s))
    return Gone(_changed(session, progress).count + _changed(session, old).count)


def forget_audit(session: Session, settings: Settings) -> Gone:
    """Delete old entries of who changed what."""
    kept_until = database_now(session) - timedelta(seconds=settings.audit_kept_s)
    return _changed(session, delete(AuditEntry).where(AuditEntry.created_at < kept_until))


def forget_deliveries(session: Session, settings: Settings) -> Gone:
    """Delete what was told to webhooks long ago; what is on its way stays."""
    kept_until = database_now(session) - timedelta(seconds=settings.events_kept_s)
    old = delete(Delivery).where(Delivery.created_at < kept_until)
    return _changed(session, old.where(Delivery.state != DeliveryState.PENDING))


def forget_training_states(session: Session, settings: Settings) -> Gone:
    """Let go of the training states of what ended long ago; those of a search that goes on are kept."""
    ended = [state.value for state in ENDED]
    over = select(Search.id).where(Search.state.in_(ended))
    kept_until = database_now(session) - timedelta(seconds=settings.training_state_kept_s)
    verified = (
        update(Verification)
        .where(Verification.state_sha256.is_not(None), Verification.state.in_(ended))
        .where(Verification.finished_at < kept_until)
        .where(or_(Verification.search_id.is_(None), Verification.search_id.in_(over)))
        .values(state_sha256=None, state_iteration=None, version=Verification.version + 1)
    )
    forgotten = _changed(session, verified).count
    for table in (Pretraining, PseudoLabelling):
        forgotten += _changed(
            session,
            update(table)
            .where(table.state_sha256.is_not(None), table.state.in_(ended))
            .where(table.finished_at < kept_until)
            .values(state_sha256=None, state_iteration=None, version=table.version + 1),
        ).count
    return Gone(forgotten)


def forget_features(session: Session, max_bytes: int) -> Gone:
    """Forget the files of features that were used longest ago, until all together are no larger than `max_bytes`."""
    rows = session.execute(
        select(FeatureFile.key, FeatureFile.size_bytes).order_by(FeatureFile.used_at.desc(), FeatureFile.key)
    )
    total, keys = 0, []
    for key, size in rows:
        total += size
        if total > max_bytes:
            keys.append(key)
    for start in range(0, len(keys), 500):  # SQLite takes a limited number of parameters
        session.execute(delete(FeatureFile).where(FeatureFile.key.in_(keys[start : start + 500])))
    return Gone(len(keys))


def _changed(session: Session, statement: Delete | Update) -> Gone:
    found = session.execute(statement)
    return Gone(found.rowcount if isinstance(found, CursorResult) else 0)


def remove_orphaned_blobs(
    database: Database, store: BlobStore, older_than: timedelta = OLD_AFTER
) -> list[tuple[str, int]]:
    """Remove stored files that no record has referred to for as long as `older_than`; their digests and sizes.

    A file that is stored again becomes young again, so one that is about to be referred to is never taken.
    """
    removed = []
    with database.reading() as session:
        used = set(_referred(session))
        limit = database_now(session) - older_than
    for sha256, size in _orphans(store, used, limit):
        try:
            with database.unit_of_work() as session:
                row = session.get(Blob, sha256, with_for_update=True)
                if row is not None and row.created_at > limit:
                    continue
                if row is not None:
                    session.delete(row)
                    session.flush()
                if sha256 in set(_referred(session)):
                    raise IntegrityError("referred to by now", None, ValueError(sha256))
                store.delete(sha256)
        except IntegrityError:  # somebody refers to it since we looked
            continue
        removed.append((sha256, size))
    if removed:
        log.info("removed %d files that nothing referred to", len(removed))
    return removed


def _would_go(database: Database, store: BlobStore, used: set[str], older_than: timedelta) -> Gone:
    gone = Gone()
    with database.reading() as session:
        limit = database_now(session) - older_than
        for sha256, size in _orphans(store, used, limit):
            row = session.get(Blob, sha256)
            if row is None or row.created_at <= limit:
                gone.add(size)
    return gone


def _orphans(store: BlobStore, used: set[str], limit: datetime) -> Iterator[tuple[str, int]]:
    for key, size in list(store.keys("blobs")):
        sha256 = key.rsplit("/", 1)[-1]
        # a name that is none of ours is not ours to delete
        if sha256 not in used and len(sha256) == 64 and _stored_at(store, key) <= limit:
            yield sha256, size


def _referred(session: Session) -> Iterator[str]:
    digests, lists = columns_that_name_blobs()
    for column in digests:
        yield from session.scalars(select(column).where(column.is_not(None)))
    for column in lists:
        for files in session.scalars(select(column).where(column.is_not(None))):
            yield from (file["sha256"] for file in files)


def _stored_at(store: BlobStore, key: str) -> datetime:
    moment = store.filesystem.modified(f"{store.root}/{key}")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _uploads(store: BlobStore) -> dict[str, int]:
    """The folders of uploads in storage, and their bytes."""
    sizes: dict[str, int] = {}
    with suppress(FileNotFoundError):
        for key, size in store.keys("uploads"):
            folder = key.split("/")[1]
            sizes[folder] = sizes.get(folder, 0) + size
    return sizes


def _is_old(store: BlobStore, folder: str, older_than: timedelta) -> bool:
    limit = datetime.now(UTC) - older_than
    return all(_stored_at(store, key) <= limit for key, _ in list(store.keys(f"uploads/{folder}")))
