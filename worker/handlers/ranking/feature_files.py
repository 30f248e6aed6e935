"""Files of features in storage, where every host finds them by what they were computed from."""

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import FeatureFile
from app.errors import NotFound
from app.storage.remember import remember_blob
from worker.attempt import Attempt
from worker.features.cache import path_of

MEDIA_TYPE = "application/vnd.safetensors"


def is_there(attempt: Attempt, key: str) -> bool:
    with attempt.database.reading() as session:
        row = session.get(FeatureFile, key)
    return row is not None and attempt.store.exists(row.sha256)


def fetch(attempt: Attempt, key: str, folder: Path) -> Path | None:
    """A copy in `folder`, under the name that `worker.features.cache` looks for; None where there is none."""
    with attempt.database.reading() as session:
        row = session.get(FeatureFile, key)
    if row is None:
        return None
    try:
        stored = attempt.store.local_path(row.sha256)
    except NotFound:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, key)
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        shutil.copyfile(stored, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    with attempt.database.unit_of_work() as session:
        session.execute(
            update(FeatureFile).where(FeatureFile.key == key).values(used_at=database_now(session))
        )
    return path


def keep(attempt: Attempt, key: str, path: Path) -> None:
    """Puts the file into storage, to be found under `key` by any host. Raises LeaseLost."""
    stored = attempt.store.put_file(path)
    with attempt.writing() as session:
        remember_blob(session, stored, MEDIA_TYPE)
        session.merge(
            FeatureFile(
                key=key,
                sha256=stored.sha256,
                size_bytes=stored.size_bytes,
                used_at=database_now(session),
            )
        )


def forget(session: Session, keys: Iterable[str]) -> None:
    """Removes the names of these files; the files themselves go a day after nothing refers to them."""
    session.execute(delete(FeatureFile).where(FeatureFile.key.in_(list(keys))))
