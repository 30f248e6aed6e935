"""Where the entries of an archive go: one folder, with every byte counted against the limits."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from app.errors import StorageFull, UnusableArchive
from app.settings import Settings
from app.storage.archive_names import NamesSeen, is_litter, is_nested, refuse, refuse_twice, safe_parts

CHUNK = 1 << 20
# Small archives of text compress well; below this size a high ratio harms nobody.
RATIO_FREE_BYTES = 16 << 20


@dataclass(frozen=True)
class ArchiveLimits:
    """Caps in bytes and entries; `ratio` is unpacked bytes over packed bytes, `min_free_bytes` is left on the disk."""

    files: int
    total_bytes: int
    file_bytes: int
    ratio: int
    min_free_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> "ArchiveLimits":
        return cls(
            files=settings.max_archive_files,
            total_bytes=settings.max_archive_bytes,
            file_bytes=settings.max_archive_file_bytes,
            ratio=settings.max_archive_ratio,
            min_free_bytes=settings.min_free_disk_bytes,
        )


class Sink:
    """Writes entries below one folder and keeps every count; both readers go through it.

    `within` is the folder that the entries of an archive inside the archive go to; `nested` the archives that were met.
    `encoding_of` tells the encoding of a zip's names that carry no UTF-8 flag.
    """

    def __init__(
        self,
        root: Path,
        limits: ArchiveLimits,
        packed_bytes: int,
        check: Callable[[], None],
        encoding_of: Callable[[bytes], str],
    ) -> None:
        self.encoding_of = encoding_of
        self.root, self.limits, self.packed_bytes, self.check = root, limits, packed_bytes, check
        self.entries = self.files = self.total = 0
        self.nested: list[str] = []
        self.within: tuple[str, ...] = ()
        self.seen = NamesSeen()

    def accept(self, name: str, is_folder: bool) -> tuple[str, ...] | None:
        """The safe parts of a file to be written, or None where the entry is a folder or passed over."""
        self.entries += 1
        if self.entries > self.limits.files:
            raise UnusableArchive(
                f"The archive has more than {self.limits.files} entries; split it.",
                code="archive_too_many_files",
            )
        self.check()
        parts = safe_parts(name)
        if not parts or is_litter(parts):
            return None
        parts = self.within + parts
        if is_folder:
            self.seen.add_folder(parts)
            return None
        self.seen.add_file(parts)
        if is_nested(parts):
            self.nested.append("/".join(parts))
        return parts

    def declared(self, name: str, size: int) -> None:
        """Refuses early what the headers admit; what they hide is found by `write`."""
        if size > self.limits.file_bytes:
            raise self._too_large(name)

    def write(self, parts: tuple[str, ...], source: IO[bytes], size: int, packed_bytes: int | None) -> None:
        """Copy `source`, which must give exactly `size` bytes; `packed_bytes` is what the entry takes in the archive."""
        name, written = "/".join(parts), 0
        target = self.root.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError) as failure:
            raise refuse_twice(
                name, "the name is another's but for case, and the disk here keeps one."
            ) from failure
        with file:
            while chunk := source.read(CHUNK):
                self.check()
                written += len(chunk)
                self.total += len(chunk)
                if written > self.limits.file_bytes:
                    raise self._too_large(name)
                self._refuse_bomb(name, written, packed_bytes)
                file.write(chunk)
        if written != size:
            raise refuse(
                "archive_corrupt",
                name,
                f"holds {written} bytes where its header says {size}.",
                "Make the archive again.",
            )
        self.files += 1

    def refuse_emptiness(self) -> None:
        if self.nested and self.files <= len(self.nested):
            raise refuse(
                "archive_nested",
                self.nested[0],
                "the archive holds only another archive.",
                "Send the inner one itself.",
            )
        if self.files:
            return
        raise UnusableArchive(
            "The archive holds no files; pack the folder with the pictures.", code="archive_empty"
        )

    def refuse_total(self, total: int) -> None:
        if total > self.limits.total_bytes:
            raise UnusableArchive(
                f"The archive unpacks to more than {self.limits.total_bytes} bytes; split it.",
                code="archive_too_large",
            )

    def refuse_ratio(self, total: int) -> None:
        if total > max(RATIO_FREE_BYTES, self.limits.ratio * self.packed_bytes):
            raise UnusableArchive(
                f"The archive unpacks to more than {self.limits.ratio} times its size, as a bomb does; "
                "pack the pictures without padding, or store them uncompressed.",
                code="archive_ratio",
            )

    def refuse_full_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free - needed < self.limits.min_free_bytes:
            raise StorageFull(
                f"Unpacking needs {needed} bytes and {free} are free; free some space and try again."
            )

    def _refuse_bomb(self, name: str, written: int, packed_bytes: int | None) -> None:
        self.refuse_total(self.total)
        self.refuse_ratio(self.total)
        if packed_bytes is not None and written > max(RATIO_FREE_BYTES, self.limits.ratio * packed_bytes):
            raise refuse(
                "archive_ratio",
                name,
                f"unpacks to more than {self.limits.ratio} times its size, as a bomb does.",
                "Store this file uncompressed if it is meant.",
            )
        if self.total // (64 << 20) != (self.total - CHUNK) // (64 << 20):
            self.refuse_full_disk(0)

    def _too_large(self, name: str) -> UnusableArchive:
        return refuse(
            "archive_file_too_large",
            name,
            f"is larger than {self.limits.file_bytes} bytes.",
            "Leave it out or split it.",
        )
