"""What is sent: a file as it is, or a folder packed into one."""

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def open_for_upload(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary stored zip of the folder (pictures are compressed already).

    Raises FileNotFoundError where there is neither, ValueError for an empty folder.
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

    Hidden files stay out, and so do links: the service refuses archives that have them.
    """
    count = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True, strict_timestamps=False) as archive:
        for parent, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                file = Path(parent) / name
                if not name.startswith(".") and file.is_file() and not file.is_symlink():
                    archive.write(file, file.relative_to(folder).as_posix())
                    count += 1
    if not count:
        raise ValueError(f"{folder}: the folder holds no files")
    return count
