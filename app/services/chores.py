"""What has to be tidied up now and then: uploads past their time, halves of files, files that nobody refers to."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import exists, select

from app.db.engine import Database
from app.db.tables import Base, Blob
from app.services.uploads import remove_expired
from app.storage.blobs import BlobStore

EVERY_S = 600.0
# longer than any request or job takes between storing a file and naming it in a record
GRACE_S = 24 * 3600.0
_AT_ONCE = 100

log = logging.getLogger("detrank.chores")


def start(database: Database, store: BlobStore, *, every_s: float = EVERY_S) -> Callable[[], None]:
    """Tidies up in a thread every `every_s`; answers what stops it. Any number of processes may do so."""
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(every_s):
            try:
                tidy(database, store)
            except Exception:  # the database may be away; the next round comes
                log.warning("could not tidy up", exc_info=True)

    thread = threading.Thread(target=work, name="chores", daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join(5.0)

    return stop


def tidy(database: Database, store: BlobStore, *, grace_s: float = GRACE_S) -> dict[str, int]:
    """One round; answers how many of each were removed."""
    with database.unit_of_work() as session:
        uploads = remove_expired(session, store)
    return {
        "uploads": uploads,
        "halves": store.remove_partial(older_than=time.time() - grace_s),
        "blobs": _remove_unreferenced(database, store, grace_s),
    }


def _remove_unreferenced(database: Database, store: BlobStore, grace_s: float) -> int:
    before = datetime.now(UTC) - timedelta(seconds=grace_s)
    unused = select(Blob).where(
        Blob.created_at < before, *(~exists().where(column == Blob.sha256) for column in _references())
    )
    with database.unit_of_work() as session:
        blobs = session.scalars(unused.limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
        for blob in blobs:
            session.delete(blob)
            session.flush()
            store.delete(blob.sha256)
    return len(blobs)


def _references() -> list:
    """Every column that names a blob: a new foreign key is found by itself."""
    keys = (key for table in Base.metadata.tables.values() for key in table.foreign_keys)
    return [key.parent for key in keys if key.column.table is Blob.__table__]
