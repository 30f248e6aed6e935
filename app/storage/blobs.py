"""Files named by the SHA-256 of their content, in a folder or an object store (fsspec: file, s3, memory).

A file is written beside and renamed when it is whole, so nobody ever sees half of one.
"""

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from app.errors import DetrankError, InvalidRequest, NotFound, StorageFull, TooLarge, Unavailable
from app.settings import Settings

_PIECE = 1 << 20
_LOOK_AT_DISK_EVERY = 64 << 20
_HALF_IS_OLD_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class Stored:
    """A whole file in the store."""

    sha256: str
    size_bytes: int


class Writer:
    """A file on its way into the store; nothing of it stays unless `commit` is called."""

    def __init__(self, store: "BlobStore", limit_bytes: int | None, digest: str) -> None:
        self._store = store
        self._limit = limit_bytes
        self._digest = hashlib.sha256()
        # of what a caller compares with; nothing is kept under another name than its SHA-256
        self._other = hashlib.new(digest, usedforsecurity=False) if digest != "sha256" else None
        self._looked_at = 0
        self.size_bytes = 0
        self.path = store.new_partial()
        self._file: IO[bytes] = self.path.open("wb")

    def write(self, data: bytes) -> None:
        """Raises TooLarge past the limit and StorageFull where the disk runs short."""
        self.size_bytes += len(data)
        if self._limit is not None and self.size_bytes > self._limit:
            raise TooLarge(f"the body is longer than the {self._limit:,} bytes allowed here")
        if self.size_bytes - self._looked_at >= _LOOK_AT_DISK_EVERY:
            self._looked_at = self.size_bytes
            self._store.require_room(0)
        self._digest.update(data)
        if self._other is not None:
            self._other.update(data)
        with _full_disk():
            self._file.write(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def digest_by(self, algorithm: str) -> bytes:
        """By `sha256`, or the algorithm that the writer was asked for."""
        if algorithm == "sha256":
            return self._digest.digest()
        if self._other is None or self._other.name != algorithm:
            raise ValueError(f"this writer was not asked for {algorithm}")
        return self._other.digest()

    def commit(self) -> Stored:
        """Keeps the file under its digest; the same content twice is kept once."""
        stored = Stored(self.sha256, self.size_bytes)
        self._keep(self._store.key_of(stored.sha256))
        return stored

    def commit_as(self, key: str) -> int:
        """Keeps the file under a name of our own (parts of uploads); answers its size."""
        self._keep(key)
        return self.size_bytes

    def seal(self) -> None:
        """Nothing more will be written, and what was survives a power cut. The slow half of a commit."""
        if not self._file.closed:
            with _full_disk():
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()

    def _keep(self, key: str) -> None:
        self.seal()
        with _full_disk():
            self._store.move_in(self.path, key)

    def abort(self) -> None:
        """Forgets what was written; harmless after `commit`."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


class BlobStore:
    """Content-addressed files at `url`. Threads and processes may share it."""

    def __init__(self, url: str, *, cache: Path, scratch: Path, min_free_bytes: int = 0) -> None:
        # urls, not paths, so that a new protocol is a new URL and nothing else
        self.filesystem, root = url_to_fs(url)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.filesystem, LocalFileSystem)
        self._cache = cache / "blobs"
        # beside the files where they are local: a rename across file systems is a copy
        self._partial = Path(self.root) / "partial" if self.is_local else scratch / "partial"
        self._min_free = min_free_bytes
        self._fetching = threading.Lock()
        self._remove_old_halves()

    def key_of(self, sha256: str) -> str:
        """Where in the store the content with this digest is. Raises InvalidRequest for what is no digest."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise InvalidRequest("a SHA-256 digest is 64 lower-case hexadecimal digits")
        return f"blobs/{sha256[:2]}/{sha256}"

    def new_partial(self) -> Path:
        self._partial.mkdir(parents=True, exist_ok=True)
        return self._partial / uuid.uuid4().hex

    def writer(
        self, *, limit_bytes: int | None = None, expected_bytes: int = 0, digest: str = "sha256"
    ) -> Writer:
        """A stream into the store; `digest`: also by this algorithm. Raises StorageFull where there is no room."""
        self.require_room(expected_bytes)
        return Writer(self, limit_bytes, digest)

    def require_room(self, expected_bytes: int) -> None:
        free = shutil.disk_usage(self._partial).free
        if free - expected_bytes < self._min_free:
            raise StorageFull(
                f"{free:,} bytes are free, {expected_bytes:,} are to be written and {self._min_free:,} must stay free: "
                "delete datasets, checkpoints or rankings, or give the service a larger disk"
            )

    def put(self, source: BinaryIO, *, limit_bytes: int | None = None) -> Stored:
        """Copies an open file into the store."""
        with self.writer(limit_bytes=limit_bytes) as writer:
            while piece := source.read(_PIECE):
                writer.write(piece)
            return writer.commit()

    def put_file(self, path: Path, *, limit_bytes: int | None = None) -> Stored:
        """Copies a file of this host into the store."""
        with path.open("rb") as source:
            return self.put(source, limit_bytes=limit_bytes)

    def move_in(self, path: Path, key: str) -> None:
        """Moves a finished local file to `key`; readers see all of it or nothing."""
        target = f"{self.root}/{key}"
        if not self.is_local:
            # an object store has no folders, and a bucket that is missing is a mistake, not to be made
            with _answered():
                self.filesystem.put_file(str(path), target)
            path.unlink(missing_ok=True)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        _sync_folder(Path(target).parent)

    def adopt(self, path: Path, sha256: str) -> Stored:
        """Keeps a local file of the store's own folders under its digest: another name for the same bytes, no copy."""
        target = Path(self.root) / self.key_of(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size
        with contextlib.suppress(FileExistsError), _full_disk():
            os.link(path, target)
        _sync_folder(target.parent)
        return Stored(sha256, size)

    def exists(self, sha256: str) -> bool:
        with self._asked():
            return self.filesystem.exists(f"{self.root}/{self.key_of(sha256)}")

    def open(self, sha256: str) -> BinaryIO:
        """The content, for reading. Raises NotFound where it is gone."""
        return self.open_key(self.key_of(sha256))

    def open_key(self, key: str) -> BinaryIO:
        try:
            with self._asked():
                return self.filesystem.open(f"{self.root}/{key}", "rb")
        except FileNotFoundError as missing:
            raise NotFound(f"the file {key} is no longer in storage") from missing

    def local_path(self, sha256: str) -> Path:
        """A file of this host with the content: the stored one itself, or a copy fetched once into the cache.

        Never change it. Raises NotFound where the content is gone.
        """
        key = self.key_of(sha256)
        if self.is_local:
            path = Path(self.root) / key
            if not path.is_file():
                raise NotFound(f"the file {key} is no longer in storage")
            return path
        path = self._cache / sha256[:2] / sha256
        with self._fetching:
            if path.is_file():
                path.touch()
            else:
                self._fetch(key, sha256, path)
        return path

    def _fetch(self, key: str, sha256: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        digest = hashlib.sha256()
        try:
            with self.open_key(key) as source, beside.open("wb") as copy, _answered(), _full_disk():
                while piece := source.read(_PIECE):
                    digest.update(piece)
                    copy.write(piece)
            if digest.hexdigest() != sha256:
                raise NotFound(f"the file {key} in storage is damaged: its content has another digest")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        """Removes the content here and from this host's cache; harmless where it is gone."""
        self.delete_key(self.key_of(sha256))
        (self._cache / sha256[:2] / sha256).unlink(missing_ok=True)

    def delete_key(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._asked():
            self.filesystem.rm_file(f"{self.root}/{key}")

    def delete_folder(self, prefix: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._asked():
            self.filesystem.rm(f"{self.root}/{prefix}", recursive=True)

    def look(self) -> None:
        """Asks whether the store is there. Raises Unavailable where it is not."""
        if self.is_local:
            if not os.access(self.root, os.W_OK):
                raise Unavailable("the folder of storage is not there, or cannot be written to")
            return
        bucket = self.root.split("/", 1)[0]
        with _answered():
            if isinstance(self.filesystem.protocol, str) or "s3" not in self.filesystem.protocol:
                self.filesystem.exists(self.root)
                return
            try:
                self.filesystem.call_s3("head_bucket", Bucket=bucket)
            except FileNotFoundError as missing:
                raise Unavailable(_no_bucket(bucket)) from missing

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        if self.is_local:
            yield
            return
        with _answered():
            yield

    def _remove_old_halves(self) -> None:
        # left by processes that died while they wrote
        self._partial.mkdir(parents=True, exist_ok=True)
        for path in self._partial.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _HALF_IS_OLD_AFTER_S:
                    path.unlink()

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys under `prefix` with their sizes in bytes, sorted."""
        self.filesystem.invalidate_cache()
        with self._asked():
            found = self.filesystem.find(f"{self.root}/{prefix}", detail=True)
        for path in sorted(found):
            yield path[len(self.root) + 1 :], int(found[path]["size"])

    def __iter__(self) -> Iterator[str]:
        """The digests of everything stored."""
        for key, _ in self.keys("blobs"):
            yield key.rsplit("/", 1)[-1]


def open_store(settings: Settings) -> BlobStore:
    """The store that the settings name."""
    return BlobStore(
        settings.resolved_storage_url,
        cache=settings.cache_dir,
        scratch=settings.scratch_dir,
        min_free_bytes=settings.min_free_disk_bytes,
    )


def _sync_folder(folder: Path) -> None:
    # without this a power cut can lose the name of a file whose bytes are safe
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """What an object store that is away, or refuses us, raises, as Unavailable; a missing file stays what it is."""
    try:
        yield
    except DetrankError:
        raise
    except FileNotFoundError as missing:
        if getattr(missing.__cause__, "response", {}).get("Error", {}).get("Code") == "NoSuchBucket":
            raise Unavailable(_no_bucket()) from missing
        raise
    except Exception as failure:  # botocore, aiohttp and fsspec have errors of their own
        raise Unavailable(f"storage does not answer: {type(failure).__name__}: {failure}"[:300]) from failure


def _no_bucket(name: str = "of storage") -> str:
    return f"the bucket {name} does not exist: make it, or correct DETRANK_STORAGE_URL"


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        if failure.errno in (28, 122):  # ENOSPC, EDQUOT
            raise StorageFull("the disk is full: free some room and send it again") from failure
        raise
