"""Pictures: cut, spoilt, with headers that lie, bombs of every kind, and what only looks like a picture."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import PIL.Image
import PIL.PngImagePlugin

from tests.security.hostile.case import Case, damaged, files_of, is_picture, zip_of

KINDS = ("png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm")
MIB = 1 << 20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", zlib.compress(data or bytes(4096)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@cache
def sound(kind: str) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    content = io.BytesIO()
    PIL.Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def _frames(count: int) -> bytes:
    content = io.BytesIO()
    first, *rest = (PIL.Image.new("P", (64, 64), n % 200) for n in range(count))
    first.save(content, "gif", save_all=True, append_images=rest)
    return content.getvalue()


def _tiff(width: int, height: int, strip: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, strip)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def _tiff_circle() -> bytes:
    """Its second directory is its first."""
    one = _tiff(40, 30, 1200)
    return one[:-4] + struct.pack("<I", 8)


def _bmp(width: int, height: int, compression: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, 0, 0, 0, 2**31 - 1, 0)
    return b"BM" + struct.pack("<IHHI", 2**31, 0, 0, 54) + info + bytes(100)


def _jpeg_size(width: int, height: int) -> bytes:
    content = bytearray(sound("jpeg"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


ODD: dict[str, Callable[[], bytes]] = {
    "png of 2**31 pixels a side": lambda: png(2**31 - 1, 2**31 - 1),
    "png of no width": lambda: png(0, 30),
    "png of one bit and 40,000 pixels a side": lambda: png(40_000, 40_000, 1, 0, bytes(40_000 * 5_001)),
    "png of 9,000 pixels a side, black": lambda: png(9_000, 9_000, 1, 0, bytes(9_000 * 1_126)),
    "png of depth 255": lambda: png(40, 30, 255),
    "png of an unknown colour": lambda: png(40, 30, 8, 9),
    "png with too few rows": lambda: png(40, 30, 8, 2, bytes(50)),
    "png with too much data": lambda: png(4, 4, 8, 2, bytes(32 * MIB)),
    "png with a text bomb": lambda: png(
        4, 4, 8, 2, bytes(100), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * MIB)))
    ),
    "png with a profile bomb": lambda: png(
        4, 4, 8, 2, bytes(100), chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 * MIB)))
    ),
    "png with 50,000 chunks": lambda: png(4, 4, 8, 2, bytes(100), *([chunk(b"tEXt", b"a\0b")] * 50_000)),
    "png with a chunk of 2**31 bytes": lambda: sound("png")[:33] + struct.pack(">I", 2**31) + b"IDAT",
    "gif of 3,000 frames": lambda: _frames(3_000),
    "gif without an end": lambda: sound("gif")[:-1] * 200,
    "tiff of 2**31 pixels a side": lambda: _tiff(2**31, 2**31, 100),
    "tiff whose strip is not there": lambda: _tiff(40, 30, 2**31),
    "tiff in a circle": _tiff_circle,
    "bmp of negative size": lambda: _bmp(-40, -30, 0),
    "bmp of run lengths without runs": lambda: _bmp(4_000, 4_000, 1),
    "bmp with an unknown compression": lambda: _bmp(40, 30, 77),
    "jpeg of 65,535 pixels a side": lambda: _jpeg_size(65_535, 65_535),
    "jpeg of 8,000 pixels a side": lambda: _jpeg_size(8_000, 8_000),
    "jpeg of no height": lambda: _jpeg_size(40, 0),
    "ppm of 10**9 pixels": lambda: b"P6 1000000000 1000000000 255\n" + bytes(100),
    "ppm of negative size": lambda: b"P6 -5 -5 255\n" + bytes(100),
    "ppm with an endless comment": lambda: b"P6\n#" + b"a" * MIB,
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "html": lambda: b"<!DOCTYPE html><img src=x>",
    "jpeg that is a zip too": lambda: sound("jpeg") + zip_of({"../evil.txt": b"x"}),
    "png that is HTML too": lambda: sound("png") + b"<script>alert(1)</script>",
}


def _among_good(content: bytes, suffix: str) -> bytes:
    """COCO of `a`, which is what it is, and `b`, which is this."""
    files = dict(files_of("voc beside the pictures"))
    target = next(path for path in files if is_picture(path) and path.rpartition("/")[2].startswith("b"))
    files[target] = content
    return zip_of(files)


def _cut(kind: str, share: float) -> bytes:
    return _among_good(sound(kind)[: int(len(sound(kind)) * share)], kind)


def _spoilt(kind: str, seed: int) -> bytes:
    return _among_good(damaged(sound(kind), seed), kind)


def _odd(name: str) -> bytes:
    return _among_good(ODD[name](), "png")


def cases() -> Iterator[Case]:
    for kind in KINDS:
        for share in (0.05, 0.5, 0.95):
            yield Case(f"{kind} cut at {share:g}", "datasets", partial(_cut, kind, share), spared=True)
        for seed in range(3):
            yield Case(f"{kind} spoilt, seed {seed}", "datasets", partial(_spoilt, kind, seed), spared=True)
    for name in ODD:
        yield Case(name, "datasets", partial(_odd, name), spared=True)
