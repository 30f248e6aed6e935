"""What is sent: a file as it is, or a folder packed into one."""

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path


class NothingToSend(ValueError):
    """A folder without files, or with a link to nothing; the message says which."""


@contextlib.contextmanager
def open_for_upload(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary stored zip of the folder (pictures are compressed already).

    Raises FileNotFoundError where there is neither, NothingToSend for an empty folder.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    with tempfile.TemporaryDirectory(prefix="detrank-") as folder:
        packed = Path(folder) / "folder.zip"
        pack(path, packed)
        yield packed


def pack(folder: Path, target: Path) -> int:
    """Writes a stored zip of the folder's files, in order of name; returns their number.

    Hidden files stay out. Links are followed, for the folder is the caller's own and the service refuses archives with links; a
    folder that holds itself is packed once. Raises NothingToSend for a link to nothing and for a folder without files.
    """
    count = 0
    seen: set[str] = set()
    with zipfile.ZipFile(
        target, "w", zipfile.ZIP_STORED, allowZip64=True, strict_timestamps=False
    ) as archive:
        for parent, folders, names in os.walk(folder, followlinks=True):
            above = os.path.realpath(parent)
            folders[:] = [] if above in seen else sorted(name for name in folders if not name.startswith("."))
            names = [] if above in seen else names
            seen.add(above)
            for name in sorted(names):
                file = Path(parent) / name
                if not name.startswith(".") and file.is_symlink() and not file.exists():
                    raise NothingToSend(f"{file}: a link to nothing; take it out or repair it")
                if not name.startswith(".") and file.is_file():
                    archive.write(file, file.relative_to(folder).as_posix())
                    count += 1
    if not count:
        raise NothingToSend(f"{folder}: the folder holds no files")
    return count
