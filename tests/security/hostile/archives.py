"""Archives: cut, spoilt, with headers that lie, nested, of other kinds at once, with names that systems reserve."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial

from tests.security.hostile.case import Case, damaged, files_of, zip_of

MIB = 1 << 20
# (name, place in the record, format, values); places as in APPNOTE.TXT 4.3
LOCAL, ENTRY, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
LIES = {
    "local method": (LOCAL, 8, "<H", (1, 12, 99)),
    "local flags": (LOCAL, 6, "<H", (1, 0x2000)),
    "local sizes": (LOCAL, 18, "<I", (0, 7, 2**32 - 1)),
    "local name length": (LOCAL, 26, "<H", (0, 2, 65535)),
    "local extra length": (LOCAL, 28, "<H", (9, 65535)),
    "method": (ENTRY, 10, "<H", (1, 12, 99)),
    "flags": (ENTRY, 8, "<H", (1, 0x2000)),
    "checksum": (ENTRY, 16, "<I", (0, 1)),
    "packed size": (ENTRY, 20, "<I", (0, 7, 2**31, 2**32 - 1)),
    "plain size": (ENTRY, 24, "<I", (0, 7, 2**31, 2**32 - 1)),
    "name length": (ENTRY, 28, "<H", (0, 2, 65535)),
    "extra length": (ENTRY, 30, "<H", (9, 65535)),
    "offset": (ENTRY, 42, "<I", (1, 2**31, 2**32 - 1)),
    "number of entries": (END, 10, "<H", (0, 1, 65535)),
    "directory size": (END, 12, "<I", (0, 2**31, 2**32 - 1)),
    "directory offset": (END, 16, "<I", (0, 2**31, 2**32 - 1)),
}
NAMES = (
    "CON",
    "NUL.png",
    "aux.txt",
    "a.png.",
    "a.png ",
    "a:b.png",
    "a?.png",
    "a|b.png",
    "-rf",
    "~",
    "$(id).png",
)
NAMES += (
    "\u202egnp.exe",
    "a\u200b.png",
    "\ufeffa.png",
    "ａ.png",
    "ﬁ.png",
    "\U0001f600" * 60,
    "é" * 127,
    "%2e%2e%2fa",
)
NAMES += (
    "...",
    "a/.../b.png",
    "../a.png",
    "..\\a.png",
    "a/../../b.png",
    "/a.png",
    "//a/b.png",
    "C:a.png",
    "a\x07.png",
)
NAMES += ("x" * 300, "d/" * 60 + "a.png", "a\n.png", ".", "..", " ", "a//b.png")
FRONTS = {
    "a JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(50) + b"\xff\xd9",
    "a GIF": b"GIF89a\1\0\1\0\0\0\0;",
    "a PDF": b"%PDF-1.7\n1 0 obj<<>>endobj\n",
    "a script": b"#!/bin/sh\ntouch /tmp/detrank-polyglot\nexit\n",
    "an ELF file": b"\x7fELF\2\1\1" + bytes(57),
    "HTML": b"<!DOCTYPE html><script>alert(1)</script>",
    "a tar": tarfile.TarInfo("a.txt").tobuf() + bytes(1024),
}


def _base() -> bytes:
    return zip_of(files_of("coco"))


def _cut(share: float) -> bytes:
    return _base()[: int(len(_base()) * share)]


def _spoilt(seed: int) -> bytes:
    return damaged(_base(), seed, 12)


def _lying(record: bytes, place: int, form: str, value: int) -> bytes:
    content = bytearray(_base())
    at = content.index(record) + place
    content[at : at + struct.calcsize(form)] = struct.pack(form, value)
    return bytes(content)


def _named(name: str) -> bytes:
    return zip_of({name: b"x", **files_of("coco")}, zipfile.ZIP_STORED)


def _before(front: bytes) -> bytes:
    return front + _base()


def _zips(depth: int) -> bytes:
    content = _base()
    for _ in range(depth):
        content = zip_of({"inner.zip": content})
    return content


def _gzips(depth: int) -> bytes:
    content = _tar(files_of("coco"), "w")
    for _ in range(depth):
        content = gzip.compress(content)
    return content


def _tar(files: dict[str, bytes], mode: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def _tar_cut(share: float) -> bytes:
    whole = _tar(files_of("coco"), "w:gz")
    return whole[: int(len(whole) * share)]


def _tar_spoilt(seed: int) -> bytes:
    return damaged(_tar(files_of("coco"), "w"), seed, 12)


def _many(count: int) -> bytes:
    return zip_of({f"{number}.txt": b"" for number in range(count)}, zipfile.ZIP_STORED)


BOMBS = {
    "zeros in a picture": lambda: zip_of({"a.png": bytes(64 * MIB)}),
    "zeros in annotations": lambda: zip_of({"annotations.json": bytes(64 * MIB), **files_of("yolo")}),
    "zeros in a tar": lambda: _tar({"a.csv": bytes(64 * MIB)}, "w:gz"),
    "gzip of a gzip of zeros": lambda: gzip.compress(gzip.compress(bytes(64 * MIB))),
    "a bomb in a zip": lambda: zip_of({"inner.zip": zip_of({"a.txt": bytes(64 * MIB)})}),
    "20,000 empty files": lambda: _many(20_000),
}


def cases() -> Iterator[Case]:
    for number in range(1, 16):
        yield Case(f"zip cut at {number}/16", "datasets", partial(_cut, number / 16))
    for number in range(1, 6):
        yield Case(f"tar.gz cut at {number}/6", "datasets", partial(_tar_cut, number / 6))
    for seed in range(16):
        yield Case(f"zip spoilt, seed {seed}", "datasets", partial(_spoilt, seed), spared=True)
        yield Case(f"tar spoilt, seed {seed}", "datasets", partial(_tar_spoilt, seed), spared=True)
    for name, (record, place, form, values) in LIES.items():
        for value in values:
            make = partial(_lying, record, place, form, value)
            yield Case(f"zip whose {name} is {value}", "datasets", make, spared=True)
    for name in NAMES:
        yield Case(f"a file called {name[:20]!r}", "datasets", partial(_named, name), spared=True)
    for name, front in FRONTS.items():
        yield Case(f"{name} that is a zip too", "datasets", partial(_before, front), spared=True)
    for depth in (1, 2, 3, 5):
        yield Case(f"zip in {depth} zips", "datasets", partial(_zips, depth), spared=True)
        yield Case(f"tar in {depth + 1} gzips", "datasets", partial(_gzips, depth + 1))
    for name, make in BOMBS.items():
        yield Case(f"bomb: {name}", "datasets", make)
