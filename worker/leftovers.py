"""Files of this host that nobody will finish or read again: what processes left that were killed, and copies long unused."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from app.settings import Settings
from app.storage.blobs import BlobStore

OLD_AFTER = timedelta(days=1)
# beside what it becomes, under its name and 32 digits of its own
_HALF = re.compile(r"\.[0-9a-f]{32}(\.part)?$")


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go, and how many bytes that frees."""

    path: Path
    size_bytes: int

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink()


def leftovers(
    settings: Settings, store: BlobStore, older_than: timedelta = OLD_AFTER
) -> dict[str, list[Leftover]]:
    """By kind, all that nothing was written to for as long as `older_than`."""
    limit = time.time() - older_than.total_seconds()
    return {kind: list(_old(paths, limit)) for kind, paths in _places(settings, store).items()}


def _places(settings: Settings, store: BlobStore) -> dict[str, Iterator[Path]]:
    cache = settings.cache_dir
    return {
        # an entry of scratch goes whole: a job's folder, with all that is in it
        "scratch": _entries(settings.scratch_dir),
        # of a store elsewhere; touched whenever they are used
        "copies": (path for path in cache.glob("blobs/*/*")),
        # no deeper: unpacked datasets are there, with all their pictures
        "halves": (
            path
            for pattern in ("*/*", "*/*/*")
            for path in cache.glob(pattern)
            if _HALF.search(path.name) and path.parts[len(cache.parts)] != "blobs"
        ),
        "half stored": _entries(Path(store.root) / "partial") if store.is_local else iter(()),
        "messages": (
            path for suffix in ("tmp", "taken") for path in (settings.home / "broker").glob(f"*/*.{suffix}")
        ),
    }


def _entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _old(paths: Iterator[Path], limit: float) -> Iterator[Leftover]:
    for path in paths:
        with suppress(FileNotFoundError):
            newest, size = _written(path)
            if newest < limit:
                yield Leftover(path, size)


def _written(entry: Path) -> tuple[float, int]:
    """When something was last written to it or in it, in seconds since 1970, and its bytes."""
    found = entry.lstat()
    newest, size = found.st_mtime, 0
    if not entry.is_dir() or entry.is_symlink():
        return newest, found.st_size
    for path in entry.rglob("*"):
        with suppress(FileNotFoundError):
            found = path.lstat()
            newest = max(newest, found.st_mtime)
            size += found.st_size
    return newest, size
