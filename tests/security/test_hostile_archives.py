"""Archives made to hurt: each is refused with its own code, names what to change, and leaves nothing behind."""

import gzip
import io
import stat
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import StorageFull, UnusableArchive
from app.storage.archives import ArchiveLimits, pack, unpack

LIMITS = ArchiveLimits(files=50, total_bytes=60 << 20, file_bytes=40 << 20, ratio=200)


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(*entries: tuple[str | tarfile.TarInfo, bytes], mode: str = "w", **options: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:
        for entry, content in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_special(kind: int) -> bytes:
    info = zipfile.ZipInfo("thing")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return zip_of((info, b"/etc/passwd"), ("a.txt", b"a"))


def tar_special(kind: bytes, target: str = "") -> bytes:
    info = tarfile.TarInfo("thing")
    info.type, info.linkname = kind, target
    return tar_of(("a.txt", b"a"), (info, b""))


def zip_with_nul() -> bytes:
    return zip_of(("a.txtX.png", b"a")).replace(b"a.txtX.png", b"a.txt\0.png")


def zip_encrypted() -> bytes:
    content = bytearray(zip_of(("a.txt", b"secret")))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def zip_overlapping() -> bytes:
    """Every entry of the directory points at the one and same data, after Fifield."""
    content = zip_of(("a.txt", b"0" * 100), ("b.txt", b"0" * 100))
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    return content[: second + 42] + struct.pack("<I", 0) + content[second + 46 :]


def zip_quoted_overlap() -> bytes:
    """The first entry claims the bytes of the second as its own."""
    content = bytearray(zip_of(("a.txt", b"0" * 100), ("b.txt", b"1" * 100)))
    entry = content.index(b"PK\x01\x02")
    for at in (18, 22):  # in the local header, compressed and plain size
        content[at : at + 4] = struct.pack("<I", 235)
    for at in (entry + 20, entry + 24):
        content[at : at + 4] = struct.pack("<I", 235)
    return bytes(content)


def zip_lying_size(size: int) -> bytes:
    """Deflated zeros whose headers admit only `size` bytes."""
    content = bytearray(zip_of(("a.txt", bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED))
    entry = content.index(b"PK\x01\x02")
    content[22:26] = content[entry + 24 : entry + 28] = struct.pack("<I", size)
    return bytes(content)


def zip_many_claimed() -> bytes:
    content = bytearray(zip_of(("a.txt", b"a")))
    end = content.index(b"PK\x05\x06")
    content[end + 8 : end + 12] = struct.pack("<HH", 60000, 60000)
    return bytes(content)


def zip_far_zip64() -> bytes:
    content = zip_of(("a.txt", b"a"))
    end = content.index(b"PK\x05\x06")
    return content[:end] + struct.pack("<IIQI", 0x07064B50, 0, 2**64 - 1, 1) + content[end:]


def zip_broken_crc() -> bytes:
    return zip_of(("a.txt", b"hello hello")).replace(b"hello hello", b"hullo hello", 1)


def zip_name_mismatch() -> bytes:
    return zip_of(("a.txt", b"a")).replace(b"a.txt", b"b.txt", 1)


def tar_huge_header() -> bytes:
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"comment": "x" * (3 << 20)}
    return gzip.compress(tar_of((info, b"a"), format=tarfile.PAX_FORMAT))


def tar_nested_headers() -> bytes:
    """One extended header on another, never a file: a recursive reader runs out of stack."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    return (header.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 1000 + bytes(1024)


def tar_negative_size() -> bytes:
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"size": "-1024"}
    return tar_of((info, b"a"), format=tarfile.PAX_FORMAT)


def tar_spoilt_second_header() -> bytes:
    content = bytearray(tar_of(("a.txt", b"a"), ("b.txt", b"b")))
    content[1024 + 150] ^= 0xFF
    return bytes(content)


def tar_sparse() -> bytes:
    info = tarfile.TarInfo("a.bin")
    info.type = tarfile.GNUTYPE_SPARSE
    return tar_of((info, b""))


NFC, NFD = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))
TAR = tar_of(("a.txt", b"a" * 3000), ("b.txt", b"b" * 3000))

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "archive_empty_file"),
    "not an archive": (lambda: b"hello, this is text" * 99, "archive_unknown_format"),
    "html page": (lambda: b"<!DOCTYPE html><html>not found</html>", "archive_unknown_format"),
    "bzip2": (lambda: tar_of(("a.txt", b"a"), mode="w:bz2"), "archive_unknown_format"),
    "xz": (lambda: tar_of(("a.txt", b"a"), mode="w:xz"), "archive_unknown_format"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(99), "archive_unknown_format"),
    "zip with lzma": (
        lambda: zip_of(("a.txt", b"a"), compression=zipfile.ZIP_LZMA),
        "archive_unknown_format",
    ),
    "zip without entries": (lambda: zip_of(), "archive_empty"),
    "tar without entries": (lambda: tar_of(), "archive_empty"),
    "only litter": (lambda: zip_of(("__MACOSX/._a.txt", b"a"), (".DS_Store", b"b")), "archive_empty"),
    "only another archive": (lambda: zip_of(("inner.tar.gz", gzip.compress(TAR))), "archive_nested"),
    "zip slip in a zip inside": (
        lambda: zip_of(("inner.zip", zip_of(("../../evil.txt", b"a")))),
        "archive_path_escapes",
    ),
    "zip bomb in a zip inside": (
        lambda: zip_of(("inner.zip", zip_of(("a.txt", bytes(17 << 20)), compression=zipfile.ZIP_DEFLATED))),
        "archive_ratio",
    ),
    "link in a zip inside": (lambda: zip_of(("inner.zip", zip_special(stat.S_IFLNK))), "archive_link"),
    "too many with those inside": (
        lambda: zip_of(("a.zip", zip_of(*((f"{i}.txt", b"") for i in range(50))))),
        "archive_too_many_files",
    ),
    "zip slip": (lambda: zip_of(("../evil.txt", b"a")), "archive_path_escapes"),
    "zip slip inside": (lambda: zip_of(("a/b/../../../evil.txt", b"a")), "archive_path_escapes"),
    "zip slip, litter": (lambda: zip_of(("../.evil", b"a"), ("a.txt", b"a")), "archive_path_escapes"),
    "zip slip, backslashes": (lambda: zip_of(("..\\evil.txt", b"a")), "archive_path_escapes"),
    "zip slip, folder": (lambda: zip_of(("../evil/", b"")), "archive_path_escapes"),
    "tar slip": (lambda: tar_of(("../evil.txt", b"a")), "archive_path_escapes"),
    "zip absolute": (lambda: zip_of(("/tmp/evil.txt", b"a")), "archive_absolute_path"),
    "tar absolute": (lambda: tar_of(("/tmp/evil.txt", b"a")), "archive_absolute_path"),
    "drive letter": (lambda: zip_of(("C:\\evil.txt", b"a")), "archive_absolute_path"),
    "network share": (lambda: zip_of(("\\\\host\\share\\evil.txt", b"a")), "archive_absolute_path"),
    "zip link": (lambda: zip_special(stat.S_IFLNK), "archive_link"),
    "zip device": (lambda: zip_special(stat.S_IFCHR), "archive_special_file"),
    "zip socket": (lambda: zip_special(stat.S_IFSOCK), "archive_special_file"),
    "tar link": (lambda: tar_special(tarfile.SYMTYPE, "/etc/passwd"), "archive_link"),
    "tar hard link": (lambda: tar_special(tarfile.LNKTYPE, "a.txt"), "archive_link"),
    "tar device": (lambda: tar_special(tarfile.CHRTYPE), "archive_special_file"),
    "tar pipe": (lambda: tar_special(tarfile.FIFOTYPE), "archive_special_file"),
    "tar sparse": (tar_sparse, "archive_special_file"),
    "zip twice": (lambda: zip_of(("a.txt", b"a"), ("a.txt", b"b")), "archive_duplicate_name"),
    "zip twice by dots": (lambda: zip_of(("a.txt", b"a"), ("./a.txt", b"b")), "archive_duplicate_name"),
    "tar twice": (lambda: tar_of(("a.txt", b"a"), ("a.txt", b"b")), "archive_duplicate_name"),
    "twice but for Unicode form": (lambda: zip_of((NFC, b"a"), (NFD, b"b")), "archive_duplicate_name"),
    "file and folder": (lambda: zip_of(("a", b"a"), ("a/b.txt", b"b")), "archive_duplicate_name"),
    "folder and file": (lambda: zip_of(("a/b.txt", b"b"), ("a", b"a")), "archive_duplicate_name"),
    "NUL in name": (zip_with_nul, "archive_bad_name"),
    "control character": (lambda: zip_of(("a\x1b[2J.txt", b"a")), "archive_bad_name"),
    "tar name not UTF-8": (
        lambda: tar_of(("caf\udce9.txt", b"a"), format=tarfile.GNU_FORMAT),
        "archive_bad_name",
    ),
    "long name": (lambda: zip_of(("a" * 256, b"a")), "archive_name_too_long"),
    "long path": (lambda: tar_of(("/".join(["b" * 100] * 11), b"a")), "archive_name_too_long"),
    "deep path": (lambda: zip_of(("d/" * 40 + "a.txt", b"a")), "archive_name_too_long"),
    "encrypted": (zip_encrypted, "archive_encrypted"),
    "overlapping": (zip_overlapping, "archive_overlap"),
    "quoted overlap": (zip_quoted_overlap, "archive_overlap"),
    "too many": (lambda: zip_of(*((f"{i}.txt", b"") for i in range(51))), "archive_too_many_files"),
    "too many, tar": (lambda: tar_of(*((f"{i}.txt", b"") for i in range(51))), "archive_too_many_files"),
    "many claimed": (zip_many_claimed, "archive_too_many_files"),
    "zip bomb": (
        lambda: zip_of(("a.txt", bytes(17 << 20)), compression=zipfile.ZIP_DEFLATED),
        "archive_ratio",
    ),
    "tar bomb": (lambda: gzip.compress(tar_of(("a.txt", bytes(17 << 20)))), "archive_ratio"),
    "tar bomb in litter": (
        lambda: gzip.compress(tar_of((".a", bytes(17 << 20)), ("a.txt", b"a"))),
        "archive_ratio",
    ),
    "file too large": (lambda: zip_of(("a.txt", bytes((40 << 20) + 1))), "archive_file_too_large"),
    "too large": (
        lambda: zip_of(("a.txt", bytes(31 << 20)), ("b.txt", bytes(31 << 20))),
        "archive_too_large",
    ),
    "size too small": (lambda: zip_lying_size(10), "archive_corrupt"),
    "size too large": (lambda: zip_lying_size(3 << 20), "archive_corrupt"),
    "wrong checksum": (zip_broken_crc, "archive_corrupt"),
    "two names for one entry": (zip_name_mismatch, "archive_corrupt"),
    "far zip64 record": (zip_far_zip64, "archive_corrupt"),
    "truncated zip": (lambda: zip_of(("a.txt", b"a" * 3000))[:-30], "archive_corrupt"),
    "truncated tar": (lambda: TAR[:2000], "archive_corrupt"),
    "tar cut between entries": (lambda: TAR[: 512 + 3072], "archive_corrupt"),
    "tar cut in a header": (lambda: TAR[: 512 + 3072 + 100], "archive_corrupt"),
    "truncated tar.gz": (lambda: gzip.compress(TAR)[:-20], "archive_corrupt"),
    "gzip of text": (lambda: gzip.compress(b"hello" * 999), "archive_corrupt"),
    "gzip spoilt": (lambda: gzip.compress(TAR)[:30] + b"\xff" * 40, "archive_corrupt"),
    "spoilt second header": (tar_spoilt_second_header, "archive_corrupt"),
    "huge tar header": (tar_huge_header, "archive_corrupt"),
    "nested tar headers": (tar_nested_headers, "archive_corrupt"),
    "negative size": (tar_negative_size, "archive_corrupt"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    make, code = HOSTILE[name]
    source = tmp_path / "source"
    source.write_bytes(make())
    work = tmp_path / "work"
    with pytest.raises(UnusableArchive) as caught:
        unpack(source, work / "into", LIMITS)
    assert caught.value.reason == code, caught.value.detail
    assert caught.value.detail.isprintable()
    assert list(work.rglob("*")) == []
    assert {p.name for p in tmp_path.iterdir()} == {"source", "work"}


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_zip_cut_anywhere_is_refused(cut: int, tmp_path: Path) -> None:
    whole = zip_of(("set/a.txt", b"a" * 100), ("set/b.txt", b"b" * 100))
    source = tmp_path / "source"
    source.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(UnusableArchive):
        unpack(source, tmp_path / "into", LIMITS)
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    "content",
    [
        zip_of(("set/a.txt", b"a"), ("set/b/c.txt", b"c")),
        zip_of(("set/a.txt", b"a"), ("set/b/c.txt", b"c"), compression=zipfile.ZIP_DEFLATED),
        zip_of(("set/", b""), ("set/a.txt", b"a"), ("set\\b\\c.txt", b"c"), ("__MACOSX/set/._a.txt", b"x")),
        tar_of(("./set/a.txt", b"a"), ("./set/b/c.txt", b"c"), ("./set/.hidden", b"x" * 5000)),
        tar_of(("set/a.txt", b"a"), ("set/b/c.txt", b"c"), mode="w:gz"),
        tar_of(("set/a.txt", b"a"), ("set/b/c.txt", b"c"), format=tarfile.PAX_FORMAT),
    ],
)
def test_honest_archive_is_unpacked(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    unpacked = unpack(source, tmp_path / "into", LIMITS)
    found = {
        p.relative_to(unpacked.root).as_posix(): p.read_bytes()
        for p in unpacked.root.rglob("*")
        if p.is_file()
    }
    assert found == {"set/a.txt": b"a", "set/b/c.txt": b"c"}
    assert (unpacked.files, unpacked.bytes) == (2, 2)


def test_large_honest_tar_is_unpacked(tmp_path: Path) -> None:
    content = {f"{i}.bin": bytes([i]) * size for i, size in enumerate((0, 1, 511, 512, 513, 3 << 20))}
    source = tmp_path / "source"
    source.write_bytes(tar_of(*content.items()))
    root = unpack(source, tmp_path / "into", LIMITS).root
    assert {p.name: p.read_bytes() for p in root.iterdir()} == content


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Stop

    source = tmp_path / "source"
    source.write_bytes(zip_of(("a.txt", b"a"), ("b.txt", bytes(5 << 20))))
    with pytest.raises(Stop):
        unpack(source, tmp_path / "work" / "into", LIMITS, check)
    assert list((tmp_path / "work").iterdir()) == []


def test_full_disk_is_said_before_writing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(zip_of(("a.txt", b"a")))
    limits = ArchiveLimits(files=9, total_bytes=99, file_bytes=99, ratio=9, min_free_bytes=1 << 62)
    with pytest.raises(StorageFull):
        unpack(source, tmp_path / "work" / "into", limits)
    assert list((tmp_path / "work").iterdir()) == []


def test_existing_folder_is_never_mixed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(zip_of(("a.txt", b"a")))
    (tmp_path / "into").mkdir()
    with pytest.raises(FileExistsError):
        unpack(source, tmp_path / "into", LIMITS)


def test_pack_is_the_same_whatever_the_order_and_time(tmp_path: Path) -> None:
    for folder, order in (("one", ["b/ü.txt", "a.txt"]), ("two", ["a.txt", "b/ü.txt"])):
        for name in order:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(name.encode())
        pack(tmp_path / folder, tmp_path / f"{folder}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    root = unpack(tmp_path / "one.zip", tmp_path / "back", LIMITS).root
    assert (root / "b" / "ü.txt").read_text() == "b/ü.txt"
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two", "one.zip", "two.zip", "back"}
