"""Decoded pictures kept on disk for whoever reads the same dataset next: packed files, mapped into memory.

What is kept are the pictures as they were decoded, uint8. Pictures resized to what a network takes would have to be
float32 to leave the numbers as they are (eleven times the bytes at 800 pixels from 640 x 480), and every candidate may
take another size; resizing takes about as long as decoding a JPEG does, and is all that is left to do.

A file holds the pixels of some pictures one after another and then an index. It is written beside and renamed, so that
others see a whole file or none; any number of processes may read and write one folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

_SUFFIX = ".pixels"
_BESIDE = ".writing-"
_ABANDONED_S = 3600.0
_MAGIC = b"detrank pixels 1"
# Length of the index, then the magic word.
_END = struct.Struct(f"<Q{len(_MAGIC)}s")
# More than a picture takes in the index.
_ENTRY_BYTES = 128

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelCache:
    """Kept pictures of all datasets in one folder, at most `max_bytes`; those used longest ago go first."""

    folder: Path
    max_bytes: int

    def of(self, digest: str) -> KeptPixels:
        """The kept pictures of the dataset with this digest, to be used in a `with`."""
        return KeptPixels(self, digest)

    def files(self, digest: str = "*") -> list[tuple[int, int, Path]]:
        """(when used last in ns, bytes, path) of every file, of one dataset or of all, that used longest ago first."""
        found = []
        for path in self.folder.glob(f"{digest}/*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, path))
        return sorted(found)

    def make_room(self, keep: str) -> None:
        """Removes files of other datasets than `keep`, and then of it, until the bound is kept; and what was abandoned."""
        files = self.files()
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files, key=lambda one: (one[2].parent.name == keep, one[0])):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            total -= size
        for path in self.folder.glob(f"*/{_BESIDE}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    height: int
    width: int
    checksum: int


class KeptPixels:
    """Kept pictures of one dataset: `get` what is there, `add` what is not. Threads may share it.

    What was added is there for others once the `with` ends. A folder that cannot be written, or has no room, keeps
    nothing and stops nobody.
    """

    def __init__(self, cache: PixelCache, digest: str) -> None:
        self._cache = cache
        self._digest = digest
        self._folder = cache.folder / digest
        self._lock = threading.Lock()
        self._places: dict[int, _Place] = {}
        self._added: dict[int, list[int]] = {}
        self._file: BinaryIO | None = None
        self._beside = self._folder
        self._room = 0

    def __enter__(self) -> KeptPixels:
        mine = self._cache.files(self._digest)
        for _, _, path in mine:
            self._places |= _index_of(path)
        self._room = self._cache.max_bytes - sum(size for _, size, _ in mine)
        return self

    def get(self, image_id: int, height: int, width: int) -> np.ndarray | None:
        """(height, width, 3) uint8 of a picture, None where it is not kept whole and of this size.

        A private map of the file: it takes no memory but the pages that are read, and none once it is let go.
        """
        place = self._places.get(image_id)
        if place is None or (place.height, place.width) != (height, width):
            return None
        try:
            pixels = np.memmap(
                place.path, dtype=np.uint8, mode="c", offset=place.offset, shape=(height, width, 3)
            )
        except (OSError, ValueError):
            # Another process needed the room.
            return None
        if _checksum(pixels) != place.checksum:
            logger.warning("kept pixels of image %d are damaged and are decoded again", image_id)
            return None
        return pixels

    def add(self, image_id: int, pixels: np.ndarray) -> None:
        """Keeps a picture (height, width, 3) uint8 while there is room for it beside the dataset's others."""
        with self._lock:
            size = pixels.nbytes + _ENTRY_BYTES
            if image_id in self._places or image_id in self._added or size > self._room:
                return
            try:
                if self._file is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    descriptor, name = tempfile.mkstemp(prefix=_BESIDE, dir=self._folder)
                    self._file, self._beside = os.fdopen(descriptor, "wb"), Path(name)
                offset = self._file.tell()
                contiguous = np.ascontiguousarray(pixels)
                self._file.write(contiguous.data)
            except OSError as error:
                self._give_up(error)
                return
            self._added[image_id] = [offset, *pixels.shape[:2], _checksum(contiguous)]
            self._room -= size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in {place.path for place in self._places.values()}:
            with contextlib.suppress(OSError):
                os.utime(path)
        if self._file is None:
            return
        try:
            index = json.dumps(self._added).encode()
            self._file.write(index + _END.pack(len(index), _MAGIC))
            self._file.close()
            self._beside.rename(self._folder / (self._beside.name.removeprefix(_BESIDE) + _SUFFIX))
            self._file = None
            self._cache.make_room(self._digest)
        except OSError as failure:
            self._give_up(failure)

    def _give_up(self, error: OSError) -> None:
        logger.warning("decoded pictures cannot be kept in %s: %s", self._folder, error)
        self._room = 0
        self._added.clear()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._beside.unlink()
            self._file = None


def _checksum(pixels: np.ndarray) -> int:
    """Sum of the bytes as 64-bit words: finds what a disk loses, in a tenth of the time of a CRC."""
    flat = pixels.reshape(-1)
    whole = len(flat) // 8 * 8
    return (int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())) % 2**64


def _index_of(path: Path) -> dict[int, _Place]:
    """Where each picture of a file is; empty for a file that is none of ours or was cut short."""
    try:
        with path.open("rb") as file:
            file.seek(-_END.size, os.SEEK_END)
            end = file.tell()
            length, magic = _END.unpack(file.read())
            if magic != _MAGIC or length > end:
                raise ValueError("it does not end as it should")
            file.seek(end - length)
            index = json.loads(file.read(length))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read and is removed: %s", path, error)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return {}
    return {int(image_id): _Place(path, *where) for image_id, where in index.items()}
