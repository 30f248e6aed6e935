"""Resumable uploads (tus 1.0.0). What has arrived is kept in the store, so that any process can go on."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.engine import Database
from app.db.tables import Upload
from app.errors import Conflict, InvalidRequest, NotFound, TooLarge
from app.ids import new_id
from app.services.records import owned
from app.settings import Settings
from app.storage import assembling
from app.storage.blobs import BlobStore, Writer
from app.storage.remember import remember_blob


def folder(upload_id: str) -> str:
    return f"uploads/{upload_id}"


def create(
    session: Session,
    workspace_id: str,
    settings: Settings,
    store: BlobStore,
    length_bytes: int,
    filename: str,
) -> Upload:
    """A new upload of `length_bytes`; its room is reserved until it expires.

    Raises TooLarge, InvalidRequest for nothing at all, and StorageFull where it does not fit beside those that run.
    """
    if length_bytes > settings.max_upload_bytes:
        raise TooLarge(f"{length_bytes:,} bytes are more than the {settings.max_upload_bytes:,} allowed")
    if length_bytes == 0:
        raise InvalidRequest("an upload of 0 bytes is of no use: is the file empty?")
    now = datetime.now(UTC)
    if store.is_local:
        store.require_room(length_bytes + _still_to_come(session, now))
    upload = Upload(
        id=new_id("up"),
        workspace_id=workspace_id,
        length_bytes=length_bytes,
        offset_bytes=0,
        filename=filename,
        created_at=now,
        expires_at=now + timedelta(seconds=settings.upload_expires_s),
    )
    session.add(upload)
    session.flush()
    return upload


def _still_to_come(session: Session, now: datetime) -> int:
    """Bytes of all running uploads that have not arrived."""
    left = func.coalesce(func.sum(Upload.length_bytes - Upload.offset_bytes), 0)
    return int(session.scalar(select(left).where(Upload.sha256.is_(None), Upload.expires_at > now)) or 0)


def find(session: Session, workspace_id: str, id: str, *, lock: bool = False) -> Upload:
    """Raises NotFound, also for an upload that has expired."""
    upload = owned(session, Upload, workspace_id, id, lock=lock)
    if upload.expires_at <= datetime.now(UTC):
        raise NotFound(f"the upload {id} expired at {upload.expires_at.isoformat()}; start a new one")
    return upload


def complete(session: Session, workspace_id: str, id: str) -> Upload:
    """A whole upload. Raises InvalidRequest for an unknown one, Conflict for one that is not whole."""
    try:
        upload = find(session, workspace_id, id)
    except NotFound as missing:
        raise InvalidRequest(
            missing.detail, errors=[{"pointer": "/upload_id", "message": missing.detail}]
        ) from missing
    if upload.sha256 is None:
        message = (
            f"{upload.offset_bytes:,} of {upload.length_bytes:,} bytes have arrived: "
            f"send the rest with PATCH /v1/uploads/{id} first"
        )
        raise Conflict(message, errors=[{"pointer": "/upload_id", "message": message}])
    return upload


def check_offset(upload: Upload, offset: int) -> None:
    """Raises Conflict where the next byte is another one."""
    if upload.offset_bytes != offset:
        raise Conflict(
            f"{upload.offset_bytes} bytes have arrived, so the next part begins there, not at {offset}"
        )


def add_part(
    database: Database,
    store: BlobStore,
    workspace_id: str,
    id: str,
    offset: int,
    part: Writer,
    expires_s: float,
) -> Upload:
    """Keeps a part that begins at `offset`; the last one makes the upload whole.

    The row is locked while the part gets its name: of two that send the same part one is refused (Conflict).
    """
    part.seal()
    with database.unit_of_work() as session:
        upload = find(session, workspace_id, id, lock=True)
        check_offset(upload, offset)
        size = part.commit_as(f"{folder(id)}/{offset:020d}")
        upload.offset_bytes = offset + size
        upload.expires_at = datetime.now(UTC) + timedelta(seconds=expires_s)
    if upload.offset_bytes == upload.length_bytes:
        return assemble(database, store, workspace_id, id)
    return upload


def make_whole(database: Database, store: BlobStore, workspace_id: str, id: str) -> None:
    """Finishes an upload whose last part arrived just before the process that received it died."""
    with database.reading() as session:
        try:
            upload = find(session, workspace_id, id)
        except NotFound:
            return
    if upload.sha256 is None and upload.offset_bytes == upload.length_bytes:
        assemble(database, store, workspace_id, id)


def assemble(database: Database, store: BlobStore, workspace_id: str, id: str) -> Upload:
    """Makes one file of all parts. It may be called again after a crash."""
    with database.reading() as session:
        length = find(session, workspace_id, id).length_bytes
    stored = assembling.assemble(store, folder(id), length)
    with database.unit_of_work() as session:
        upload = find(session, workspace_id, id, lock=True)
        upload.sha256 = remember_blob(session, stored, "application/octet-stream")
    store.delete_folder(folder(id))
    return upload


def remove(session: Session, store: BlobStore, workspace_id: str, id: str) -> None:
    """Ends an upload; what was made of it stays."""
    upload = find(session, workspace_id, id, lock=True)
    session.delete(upload)
    session.flush()
    store.delete_folder(folder(id))
