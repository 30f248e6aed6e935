"""What the first bytes of a body say it is, whatever its name or its sender say."""

import zlib

NEEDED_BYTES = 4096
_BLOCK = 512


def archive_kind(head: bytes) -> str | None:
    """`zip`, `tar` or `tar.gz` by the first bytes of a file, None for anything else."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        return "tar.gz" if _is_tar(_gunzipped(head)) else None
    return "tar" if _is_tar(head) else None


def describe(head: bytes) -> str:
    """A few words on what a file that is no archive looks like, for the answer to its sender."""
    text = head[:64].lstrip()
    known = (
        (b"\x1f\x8b", "gzip, but not of a tar archive"),
        (b"Rar!", "a RAR archive"),
        (b"7z\xbc\xaf", "a 7-Zip archive"),
        (b"\xfd7zXZ", "xz"),
        (b"BZh", "bzip2"),
        (b"\x89PNG", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"--", "a multipart form"),
        (b"{", "JSON"),
        (b"[", "JSON"),
        (b"<", "HTML or XML"),
    )
    return next((words for start, words in known if text.startswith(start)), "no archive")


def _gunzipped(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _BLOCK)
    except zlib.error:
        return b""


def _is_tar(head: bytes) -> bool:
    # the checksum of the first header: older tars have no magic word
    if len(head) < _BLOCK:
        return False
    try:
        expected = int(head[148:156].split(b"\0")[0].strip() or b"x", 8)
    except ValueError:
        return False
    return expected == sum(head[:148]) + 8 * 32 + sum(head[156:_BLOCK])
