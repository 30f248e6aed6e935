"""Archives: unpack what a stranger sent without being hurt by it, and pack a folder the same way every time.

Read are zip (stored or deflated), tar and tar.gz. bzip2, xz, lzma, zstandard, 7z and rar are refused by name: their decoders
take memory that the sender chooses, or would be one more program to trust.
Headers are believed in nothing: bytes are counted as they are read, paths are built here and never taken.
"""

import errno
import gzip
import os
import shutil
import stat
import struct
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from app.errors import StorageFull, UnusableArchive
from app.storage.archive_names import refuse
from app.storage.archive_sink import CHUNK, ArchiveLimits, Sink

# One tar header with its extensions (long names, pax records); more is an attempt to fill the memory.
TAR_HEADER_BYTES = 1 << 20
CENTRAL_ENTRY_BYTES = 2048
# What the names of a zip are in that carry no UTF-8 flag (APPNOTE, appendix D), where they say nothing else.
ZIP_NAMES = "cp437"

_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "tar.gz"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "rar"),
)


@dataclass(frozen=True)
class Unpacked:
    """What came out: the folder, how many files and bytes, and the archives among them that were not opened."""

    root: Path
    files: int
    bytes: int
    nested: tuple[str, ...]


def unpack(
    path: Path,
    into: Path,
    limits: ArchiveLimits,
    check: Callable[[], None] = lambda: None,
    encoding_of: Callable[[bytes], str] = lambda names: ZIP_NAMES,
) -> Unpacked:
    """Unpack the archive at `path` into the new folder `into`, which appears only when everything is there.

    `encoding_of` tells from a zip's names, joined, in which encoding those are that carry no UTF-8 flag. `check` is called between pieces of at most a megabyte and may raise to stop. Files of operating systems and dotfiles are
    passed over. Zips inside are opened once, each into the folder of its name; other archives inside, and those beside a folder
    of their name, are files like others. Raises UnusableArchive (with the entry and what to change), or StorageFull.
    """
    if into.exists():
        raise FileExistsError(f"{into} is already there; unpack into a new folder")
    into.parent.mkdir(parents=True, exist_ok=True)
    part = into.with_name(f"{into.name}.{uuid.uuid4().hex}.part")
    part.mkdir()
    sink = Sink(part, limits, path.stat().st_size, check, encoding_of)
    try:
        match _recognise(path):
            case "zip":
                _unpack_zip(path, sink)
            case "tar":
                with path.open("rb") as file:
                    _unpack_tar(file, sink)
            case "tar.gz":
                with gzip.open(path, "rb") as file:
                    _unpack_tar(file, sink)
        for name in list(sink.nested):
            if name.casefold().endswith(".zip"):
                _open_inside(part, name, sink)
        sink.refuse_emptiness()
        os.rename(part, into)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "The disk filled up while the archive was unpacked; free some space and try again."
            ) from failure
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Unpacked(into, sink.files, sink.total, tuple(sink.nested))


def pack(folder: Path, file: Path) -> None:
    """Write every file below `folder` to the zip `file`: stored, sorted by name, no times; the same content gives the same bytes."""
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name in names:
                info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                info.create_system = 3
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                info.file_size = (folder / name).stat().st_size
                with (folder / name).open("rb") as source, archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target, CHUNK)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _recognise(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UnusableArchive(
            "The file is empty (0 bytes); send the archive again.", code="archive_empty_file"
        )
    for magic, name in _MAGIC:
        if head.startswith(magic):
            if name in ("zip", "tar.gz"):
                return name
            raise UnusableArchive(
                f"The archive is {name}; pack it as zip, tar or tar.gz.", code="archive_unknown_format"
            )
    if _is_tar_header(head):
        return "tar"
    raise UnusableArchive(
        f"The file is not an archive that is read here (it begins with {head[:8].hex(' ')}); pack it as zip, tar or tar.gz.",
        code="archive_unknown_format",
    )


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed does not know it
        return True
    except tarfile.HeaderError:
        return False
    return True


def _unpack_zip(path: Path, sink: Sink) -> None:
    try:
        _refuse_large_directory(path, sink.limits)
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            plain = [info.orig_filename.encode("cp437") for info in infos if not _says_utf8(info)]
            encoding = sink.encoding_of(b"/".join(plain))
            _refuse_overlaps(infos, archive.start_dir)
            sink.refuse_total(sum(info.file_size for info in infos))
            sink.refuse_full_disk(sum(info.file_size for info in infos))
            for info in infos:
                _unpack_zip_entry(archive, info, _name_of(info, encoding), sink)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        ValueError,
        OverflowError,
        NotImplementedError,
        OSError,
    ) as failure:
        # EINVAL: its directory names a place that no file has
        if isinstance(failure, OSError) and failure.errno != errno.EINVAL:
            raise
        raise UnusableArchive(
            f"The zip is truncated or corrupt ({failure}); make or send it again.", code="archive_corrupt"
        ) from failure


def _says_utf8(info: zipfile.ZipInfo) -> bool:
    return bool(info.flag_bits & 0x800)


def _name_of(info: zipfile.ZipInfo, encoding: str) -> str:
    """The name as it was meant; ZipInfo cuts names at a NUL, and the original shows what was tried."""
    return info.orig_filename if _says_utf8(info) else info.orig_filename.encode("cp437").decode(encoding)


def _open_inside(root: Path, name: str, sink: Sink) -> None:
    """Unpack a zip of the archive into the folder of its name, with every count going on; its file goes."""
    file = root / name
    folder = Path(name).with_suffix("")
    if (root / folder).exists():
        return
    try:
        _refuse_large_directory(file, sink.limits)
        with zipfile.ZipFile(file) as archive:
            tops = {entry.split("/", 1)[0] for entry in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, OSError):
        # What it is called is all that makes it an archive.
        return
    sink.within = folder.parent.parts if tops == {folder.name} else folder.parts
    _unpack_zip(file, sink)
    sink.within = ()
    file.unlink()
    sink.files -= 1
    sink.nested.remove(name)


def _unpack_zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, sink: Sink) -> None:
    if not info.filename:
        raise zipfile.BadZipFile("an entry has no name")
    parts = sink.accept(name, info.is_dir())
    _refuse_special(name, stat.S_IFMT(info.external_attr >> 16), info.is_dir())
    if parts is None:
        return
    if info.flag_bits & 0x1:
        raise refuse("archive_encrypted", info.filename, "is encrypted.", "Pack it without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refuse(
            "archive_unknown_format",
            info.filename,
            f"is compressed by method {info.compress_type}.",
            "Pack with stored or deflate.",
        )
    sink.declared(info.filename, info.file_size)
    with archive.open(info) as source:
        sink.write(parts, source, info.file_size, info.compress_size)


def _refuse_special(name: str, kind: int, is_folder: bool) -> None:
    if kind == stat.S_IFLNK:
        raise refuse("archive_link", name, "is a link.", "Pack the file it points to.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > is_folder:
        raise refuse("archive_special_file", name, "is a device, pipe or socket.", "Leave it out.")


def _refuse_large_directory(path: Path, limits: ArchiveLimits) -> None:
    """`zipfile` reads the central directory whole; its size is looked at first (APPNOTE 4.3.14 to 4.3.16)."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 22 - 65535 - 20))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + 22:
            raise zipfile.BadZipFile("no end of central directory")
        entries, directory = struct.unpack("<HI", tail[at + 10 : at + 16])
        locator = tail[at - 20 : at] if at >= 20 else b""
        if locator[:4] == b"PK\x06\x07":
            file.seek(min(size, struct.unpack("<Q", locator[8:16])[0]))
            record = file.read(56)
            if len(record) == 56 and record[:4] == b"PK\x06\x06":
                entries, directory = struct.unpack("<QQ", record[32:48])
    if entries > limits.files or directory > limits.files * CENTRAL_ENTRY_BYTES:
        raise UnusableArchive(
            f"The archive says it has {entries} entries; at most {limits.files} are allowed. Split it.",
            code="archive_too_many_files",
        )


def _refuse_overlaps(infos: list[zipfile.ZipInfo], directory_at: int) -> None:
    """Entries that share bytes are how a small zip becomes petabytes (Fifield, WOOT 2019)."""
    in_order = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in in_order[1:]] + [directory_at]
    for info, end in zip(in_order, ends, strict=False):
        if info.header_offset + 30 + len(info.orig_filename) + info.compress_size > end:
            raise refuse(
                "archive_overlap",
                info.filename,
                "shares its bytes with another entry.",
                "Make the zip again.",
            )


class _Metered:
    """A stream that gives out no more than it was allowed since the last entry, and counts towards the ratio."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, sink: Sink) -> None:
        self.file, self.sink, self.read_bytes, self.allowed = file, sink, 0, 0

    def allow(self, count: int) -> None:
        self.allowed = self.read_bytes + count + tarfile.RECORDSIZE

    def read(self, size: int) -> bytes:
        chunk = self.file.read(size)
        self.read_bytes += len(chunk)
        self.sink.refuse_ratio(self.read_bytes)
        if self.read_bytes > self.allowed:
            raise UnusableArchive(
                f"A tar header is longer than {TAR_HEADER_BYTES} bytes; make the archive again.",
                code="archive_corrupt",
            )
        return chunk


class _StrictHeader(tarfile.TarInfo):
    """`tarfile` takes a cut or spoilt header for the end; only a block of zeros ends an archive (POSIX.1-2017, pax)."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(archive)
        except (
            tarfile.EmptyHeaderError,  # type: ignore[attr-defined]  # typeshed knows none of these
            tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
        ) as failure:
            raise tarfile.ReadError("it ends without an end marker") from failure
        except tarfile.InvalidHeaderError as failure:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(failure)) from failure


def _unpack_tar(file: IO[bytes] | gzip.GzipFile, sink: Sink) -> None:
    stream = _Metered(file, sink)
    stream.allow(TAR_HEADER_BYTES)
    try:
        with tarfile.open(
            fileobj=cast(IO[bytes], stream), mode="r|", bufsize=tarfile.RECORDSIZE, tarinfo=_StrictHeader
        ) as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # the list would grow with every entry
                unread = _unpack_tar_entry(archive, info, stream, sink)
                stream.allow(unread + TAR_HEADER_BYTES)
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError, RecursionError) as failure:
        raise UnusableArchive(
            f"The tar is truncated or corrupt ({failure}); make or send it again.", code="archive_corrupt"
        ) from failure


def _unpack_tar_entry(archive: tarfile.TarFile, info: tarfile.TarInfo, stream: _Metered, sink: Sink) -> int:
    """Writes the entry; how many bytes of it are still to be passed over."""
    parts = sink.accept(info.name, info.isdir())
    if info.issym() or info.islnk():
        raise refuse("archive_link", info.name, "is a link.", "Pack with --dereference, or leave it out.")
    if info.issparse() or not (info.isreg() or info.isdir()):
        raise refuse("archive_special_file", info.name, "is a device, pipe or sparse file.", "Leave it out.")
    if info.size < 0:
        raise refuse("archive_corrupt", info.name, "has a negative size.", "Make the archive again.")
    sink.declared(info.name, info.size)
    sink.refuse_total(sink.total + info.size)
    source = archive.extractfile(info) if parts is not None else None
    if parts is None or source is None:
        return info.size
    stream.allow(info.size + TAR_HEADER_BYTES)
    sink.write(parts, source, info.size, None)
    return 0
