"""The parts of an upload made one file, without room for a second copy of it."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from app.errors import Conflict
from app.storage.blobs import BlobStore, Stored

_PIECE = 1 << 20
WHOLE, LOCK = "whole", "lock"


def assemble(store: BlobStore, folder: str, length: int) -> Stored:
    """Keeps the parts in `folder`, named by their offsets, as one file of `length` bytes under its digest.

    Where files are local each part is appended to the first one and removed; elsewhere they are copied together. Called
    again after a crash it goes on; the folder is for the caller to remove. Raises Conflict where a part is missing.
    """
    if not store.is_local:
        return _copied(store, folder, length)
    here = Path(store.root) / folder
    with _locked(here):
        whole = _grown(here, length)
        return store.adopt(whole, _sha256(whole))


def _grown(here: Path, length: int) -> Path:
    """All parts in one file. A part that was appended in half before a crash is appended again."""
    whole = here / WHOLE
    for part in sorted(each for each in here.iterdir() if each.name.isdigit()):
        offset = int(part.name)
        if not whole.exists() and offset == 0:
            part.rename(whole)
            continue
        if not whole.exists() or whole.stat().st_size < offset:
            break
        with whole.open("r+b") as target, part.open("rb") as source:
            target.truncate(offset)
            target.seek(offset)
            shutil.copyfileobj(source, target, _PIECE)
            target.flush()
            os.fsync(target.fileno())
        part.unlink()
    if not whole.exists() or whole.stat().st_size != length:
        raise Conflict("parts of the upload are missing in storage: start a new upload")
    return whole


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(here: Path) -> Iterator[None]:
    here.mkdir(parents=True, exist_ok=True)
    with (here / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copied(store: BlobStore, folder: str, length: int) -> Stored:
    with store.writer(limit_bytes=length, expected_bytes=length) as whole:
        for key, _ in list(store.keys(folder)):
            if int(key.rsplit("/", 1)[-1]) != whole.size_bytes:
                break
            with store.open_key(key) as part:
                while piece := part.read(_PIECE):
                    whole.write(piece)
        if whole.size_bytes != length:
            raise Conflict("parts of the upload are missing in storage: start a new upload")
        return whole.commit()
