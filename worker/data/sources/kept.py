"""Pictures that were fetched, kept on this host within a bound, by what was pinned of them."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.data.sources.base import Pin


@dataclass(frozen=True)
class KeptPictures:
    """Files in `folder`, at most `max_bytes` after each `make_room`; those used longest ago go first.

    Any number of threads and processes may share it.
    """

    folder: Path
    max_bytes: int

    def hold(self, url: str, path: str, pin: Pin, fetch: Callable[[], bytes], at: Path) -> None:
        """Puts the picture at the new path `at`: a hard link, so that it stays there whatever is removed here."""
        name = hashlib.sha256(
            "\0".join((url, path, str(pin.size), pin.mark)).encode("utf-8", "surrogateescape")
        ).hexdigest()
        kept = self.folder / name[:2] / name
        with contextlib.suppress(FileNotFoundError):
            os.link(kept, at)
            os.utime(at)
            return
        at.write_bytes(fetch())
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f"{name}.{uuid.uuid4().hex}")
        # renamed, so that nobody ever sees half of one
        os.link(at, beside)
        os.replace(beside, kept)

    def make_room(self) -> None:
        """Removes those used longest ago until the bound is kept."""
        files = []
        for folder in self.folder.glob("??"):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        state = entry.stat()
                        files.append((state.st_mtime_ns, state.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
