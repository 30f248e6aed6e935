"""Resumable uploads (tus 1.0): a broken connection costs one chunk, not the file."""

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

SMALL_BYTES = 64 << 20
CHUNK_BYTES = 16 << 20
PIECE_BYTES = 1 << 20
TRIES = 8
TUS = {"Tus-Resumable": "1.0.0"}

Request = Callable[..., httpx.Response]
Sent = Callable[[int, int], None]


def streamed(file: Path, on_sent: Sent | None = None) -> Iterator[bytes]:
    """The file's bytes in pieces, so that it is never held in memory."""
    total, done = file.stat().st_size, 0
    with file.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            if on_sent is not None:
                on_sent(done, total)


def send_resumable(
    request: Request,
    file: Path,
    on_sent: Sent | None = None,
    *,
    unreachable: type[Exception],
    chunk_bytes: int = CHUNK_BYTES,
    pause_s: float = 0.5,
) -> str:
    """Sends the file in chunks and returns the upload's id; after a broken one asks how much arrived and goes on.

    `request(method, path, headers=, content=)` raises `unreachable` where there is no answer; after TRIES failures
    in a row so does this.
    """
    total = file.stat().st_size
    filename = base64.b64encode(file.name.encode()).decode()
    created = request(
        "POST", "/v1/uploads", headers=TUS | {"Upload-Length": str(total), "Upload-Metadata": f"filename {filename}"}
    )
    location = httpx.URL(created.headers["Location"]).path
    offset, failures = 0, 0
    with file.open("rb") as stream:
        while offset < total:
            stream.seek(offset)
            headers = TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            try:
                answer = request("PATCH", location, headers=headers, content=stream.read(chunk_bytes), once=True)
                offset, failures = int(answer.headers["Upload-Offset"]), 0
            except unreachable:
                failures += 1
                if failures >= TRIES:
                    raise
                time.sleep(pause_s * failures)
                offset = int(request("HEAD", location, headers=TUS).headers["Upload-Offset"])
            if on_sent is not None:
                on_sent(offset, total)
    return location.rstrip("/").rsplit("/", 1)[-1]
