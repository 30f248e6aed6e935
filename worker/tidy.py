"""Removing what has expired and what nobody refers to: rows, scratch files, blobs."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.engine import Database, database_now
from app.db.tables import (
    Blob,
    Checkpoint,
    Dataset,
    Event,
    FeatureFile,
    Idempotency,
    Ranking,
    Search,
    Study,
    Upload,
    Verification,
    WorkerRecord,
)
from app.queue.states import ENDED
from app.settings import Settings
from app.storage.blobs import BlobStore

ORPHAN_AFTER = timedelta(days=1)
WORKER_FORGOTTEN_AFTER = timedelta(days=1)
# the last progress stands on the job itself
PROGRESS_KEPT = timedelta(hours=1)
EVENTS_KEPT = timedelta(days=30)

log = logging.getLogger(__name__)


def tidy(database: Database, settings: Settings, store: BlobStore) -> None:
    """One round of all of it."""
    with database.unit_of_work() as session:
        expired = forget_expired(session, settings)
    for upload_id in expired:
        store.delete_folder(f"uploads/{upload_id}")
    with database.unit_of_work() as session:
        forget_history(session)
        forget_training_states(session, settings)
        forget_features(session, settings.shared_features_bytes)
    remove_old_files(settings.scratch_dir)
    # copies of what lies in a remote store, touched when they are used
    for folder in sorted((settings.cache_dir / "blobs").glob("*")):
        remove_old_files(folder)
    remove_orphaned_blobs(database, store)


def forget_expired(session: Session, settings: Settings) -> list[str]:
    """Delete expired idempotency keys and uploads, and workers long silent; returns the uploads' ids."""
    now = database_now(session)
    session.execute(
        delete(Idempotency).where(
            Idempotency.created_at < now - timedelta(seconds=settings.idempotency_expires_s)
        )
    )
    session.execute(delete(WorkerRecord).where(WorkerRecord.seen_at < now - WORKER_FORGOTTEN_AFTER))
    return list(session.scalars(delete(Upload).where(Upload.expires_at < now).returning(Upload.id)))


def forget_history(session: Session) -> None:
    """Delete old events."""
    now = database_now(session)
    session.execute(delete(Event).where(Event.kind == "progress", Event.created_at < now - PROGRESS_KEPT))
    session.execute(delete(Event).where(Event.created_at < now - EVENTS_KEPT))


def forget_training_states(session: Session, settings: Settings) -> None:
    """Let go of the training states of verifications that ended long ago; those of a search that goes on are kept."""
    ended = [state.value for state in ENDED]
    over = select(Search.id).where(Search.state.in_(ended))
    kept_until = database_now(session) - timedelta(seconds=settings.training_state_kept_s)
    session.execute(
        update(Verification)
        .where(Verification.state_sha256.is_not(None), Verification.state.in_(ended))
        .where(Verification.finished_at < kept_until)
        .where(or_(Verification.search_id.is_(None), Verification.search_id.in_(over)))
        .values(state_sha256=None, state_iteration=None, version=Verification.version + 1)
    )


def forget_features(session: Session, max_bytes: int) -> None:
    """Forget the files of features that were used longest ago, until all together are no larger than `max_bytes`."""
    rows = session.execute(
        select(FeatureFile.key, FeatureFile.size_bytes).order_by(FeatureFile.used_at.desc(), FeatureFile.key)
    )
    total, gone = 0, []
    for key, size in rows:
        total += size
        if total > max_bytes:
            gone.append(key)
    for start in range(0, len(gone), 500):  # SQLite takes a limited number of parameters
        session.execute(delete(FeatureFile).where(FeatureFile.key.in_(gone[start : start + 500])))


def remove_old_files(folder: Path, older_than: timedelta = ORPHAN_AFTER) -> list[Path]:
    """Remove entries of `folder` (not in it: an entry goes whole) that nothing was written to for a day."""
    limit = time.time() - older_than.total_seconds()
    removed = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            if _last_written(entry) < limit:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
                removed.append(entry)
    return removed


def _last_written(entry: Path) -> float:
    newest = entry.lstat().st_mtime
    if entry.is_dir() and not entry.is_symlink():
        for path in entry.rglob("*"):
            with suppress(FileNotFoundError):
                newest = max(newest, path.lstat().st_mtime)
    return newest


def remove_orphaned_blobs(
    database: Database, store: BlobStore, older_than: timedelta = ORPHAN_AFTER
) -> list[str]:
    """Remove stored files that no record has referred to for a day; returns their digests.

    A file that is stored again becomes young again, so one that is about to be referred to is never taken.
    """
    removed = []
    with database.reading() as session:
        used = set(_referred(session))
        limit = database_now(session) - older_than
    for sha256 in list(store):
        if sha256 in used or _stored_at(store, sha256) > limit:
            continue
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
        removed.append(sha256)
    if removed:
        log.info("removed %d files that nothing referred to", len(removed))
    return removed


def _referred(session: Session) -> Iterator[str]:
    for column in (
        Upload.sha256,
        Dataset.source_sha256,
        Dataset.archive_sha256,
        Checkpoint.source_sha256,
        Checkpoint.weights_sha256,
        Ranking.plot_sha256,
        Ranking.map_plot_sha256,
        Verification.state_sha256,
        FeatureFile.sha256,
        Search.plot_sha256,
    ):
        yield from session.scalars(select(column).where(column.is_not(None)))
    for column in (Dataset.previews, Verification.pictures, Verification.plots, Study.files):
        for files in session.scalars(select(column).where(column.is_not(None))):
            yield from (file["sha256"] for file in files)


def _stored_at(store: BlobStore, sha256: str) -> datetime:
    moment = store.filesystem.modified(f"{store.root}/{store.key_of(sha256)}")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
