"""`file:///folder`: pictures on a disk of this host, or one that all hosts have mounted at the same place."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from worker.data.sources.base import Bounds, Check, Pin, SourceError, Tell, changed, too_many
from worker.data.tree import Tree, walk

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# without O_NONBLOCK a pipe that took a file's place would hold the job for ever
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LocalSource:
    """Links are never followed, neither the root nor anything in it, whenever they came to be."""

    threads = 2
    content_marks = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.root = Path(unquote(urlsplit(url).path))
        if not self.root.is_dir():
            raise SourceError(
                "not_found", f"there is no folder {self.root} on this host; mount it, or send an archive"
            )
        if self.root.resolve() != self.root:
            raise SourceError(
                "denied", f"{self.root} leads over a link elsewhere by now; name the folder itself"
            )

    def tree(self, mirror: Path, bounds: Bounds, tell: Tell, check: Check) -> Tree:
        found = walk(self.root)
        found.scratch = mirror.parent
        if len(found.files) > bounds.files:
            raise too_many(bounds, self.url)
        return found

    def pin(self, path: str) -> Pin:
        with self._said(path):
            return _pin(os.stat(self.root / path, follow_symlinks=False))

    def look(self, path: str, pin: Pin) -> Pin | None:
        try:
            state = os.stat(self.root / path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _pin(state) if stat.S_ISREG(state.st_mode) else None

    def read(self, path: str, pin: Pin) -> bytes:
        with self._said(path), open(open_beneath(self.root, path), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise changed(self.url, path, "it is no file")
            if _pin(before) != pin:
                raise changed(
                    self.url, path, f"it has {before.st_size:,} bytes (then {pin.size:,}) and another time"
                )
            data = file.read(pin.size + 1)
            if len(data) != pin.size or _pin(os.fstat(file.fileno())) != pin:
                raise changed(self.url, path, "it was written to while it was read")
        return data

    @contextlib.contextmanager
    def _said(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise changed(self.url, path, "it is gone") from None
        except PermissionError:
            raise SourceError(
                "denied", f"{self.root / path} may not be read by this service: change its rights"
            ) from None
        except OSError as error:
            if error.errno in (40, 62):  # ELOOP on Linux and macOS
                raise changed(self.url, path, "it is a link") from None
            raise SourceError(
                "unreachable", f"{self.root / path} cannot be read: {error.strerror or error}"
            ) from error


def _pin(state: os.stat_result) -> Pin:
    return Pin(state.st_size, str(state.st_mtime_ns))


def open_beneath(root: Path, path: str) -> int:
    """A descriptor of the file at the relative `path` below `root`, opened for reading without following any link.

    Raises OSError, with ELOOP (or ENOTDIR) where a part of the path is a link.
    """
    *folders, name = path.split("/")
    inside = os.open(root, _FOLDER)
    try:
        for folder in folders:
            outside, inside = inside, os.open(folder, _FOLDER, dir_fd=inside)
            os.close(outside)
        return os.open(name, _FILE, dir_fd=inside)
    finally:
        os.close(inside)
