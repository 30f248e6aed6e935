"""Files of this host that jobs share: unpacked datasets kept between jobs, and scratch folders that are not."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from app.storage.archives import ArchiveLimits, unpack
from app.storage.blobs import BlobStore

# What we packed ourselves needs no limit but the disk's.
OUR_OWN = ArchiveLimits(files=1 << 31, total_bytes=1 << 62, file_bytes=1 << 62, ratio=1 << 40)
_LOCK_POLL_S = 0.1


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder below `folder`, gone afterwards whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def unpacked_dataset(
    cache: Path,
    store: BlobStore,
    archive_sha256: str,
    *,
    max_bytes: int,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """The dataset packed in the blob `archive_sha256`, as a folder to read from; unpacked once per host.

    `check` is called while waiting and unpacking and may raise to stop.
    """

    def make(folder: Path) -> None:
        unpack(store.local_path(archive_sha256), folder, OUR_OWN, check)

    with kept_folder(cache, archive_sha256, make, max_bytes=max_bytes, check=check) as folder:
        yield folder


@contextlib.contextmanager
def kept_folder(
    cache: Path,
    name: str,
    make: Callable[[Path], None],
    *,
    max_bytes: int,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """The folder `name` of the cache, to read from; `make` writes it once per host, whole or not at all.

    While it is used nobody evicts it; afterwards the folders used longest ago go until `max_bytes` are kept. `check` is called
    while waiting and may raise to stop.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    with (cache / f"{name}.lock").open("a+") as lock:
        _wait(lock.fileno(), fcntl.LOCK_SH, check)
        while not folder.is_dir():
            fcntl.flock(lock, fcntl.LOCK_UN)
            _wait(lock.fileno(), fcntl.LOCK_EX, check)
            if not folder.is_dir():
                _remove_rests(folder)
                make(folder)
            # another may evict it before the lock is shared again: look once more
            _wait(lock.fileno(), fcntl.LOCK_SH, check)
        os.utime(folder)
        yield folder
    evict(cache, max_bytes)


def evict(cache: Path, max_bytes: int) -> None:
    """Removes folders that nobody uses, the one used longest ago first, until `max_bytes` are kept."""
    kept = [path for path in cache.iterdir() if path.is_dir() and not path.name.endswith(".part")]
    sizes = {path: _size(path) for path in kept}
    total = sum(sizes.values())
    for path in sorted(kept, key=lambda path: path.stat().st_mtime if path.exists() else 0.0):
        if total <= max_bytes:
            return
        with path.with_name(f"{path.name}.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            _remove(path)
            total -= sizes[path]


def _wait(lock: int, how: int, check: Callable[[], None]) -> None:
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            return
        except OSError:
            check()
            time.sleep(_LOCK_POLL_S)


def _remove(path: Path) -> None:
    # a reader that looks now must not find half of it
    doomed = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _remove_rests(folder: Path) -> None:
    """What a killed process left; call with the exclusive lock."""
    for rest in folder.parent.glob(f"{folder.name}.*.part"):
        shutil.rmtree(rest, ignore_errors=True)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
