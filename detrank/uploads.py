"""Resumable uploads (tus 1.0): a broken connection costs one chunk, not the file."""

import base64
from collections.abc import Callable
from pathlib import Path

import httpx

from detrank.errors import ProblemError, Unreachable
from detrank.steps import Pause, Sent, Steps

SMALL_BYTES = 64 << 20
CHUNK_BYTES = 16 << 20
TRIES = 8
TUS = {"Tus-Resumable": "1.0.0"}

Request = Callable[..., Steps[httpx.Response]]


def send_resumable(request: Request, file: Path, on_sent: Sent | None = None) -> Steps[str]:
    """Sends the file in chunks and returns the upload's id; goes on after a chunk that broke.

    `request(method, path, headers=, content=)` raises Unreachable where there is no answer; after TRIES failures in a row so
    does this.
    """
    total = file.stat().st_size
    filename = base64.b64encode(file.name.encode()).decode()
    created = yield from request(
        "POST",
        "/v1/uploads",
        headers=TUS | {"Upload-Length": str(total), "Upload-Metadata": f"filename {filename}"},
    )
    location = httpx.URL(created.headers["Location"]).path
    offset, failures = 0, 0
    with file.open("rb") as stream:
        while offset < total:
            stream.seek(offset)
            headers = TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            try:
                answer = yield from request(
                    "PATCH", location, headers=headers, content=stream.read(CHUNK_BYTES), once=True
                )
                offset, failures = int(answer.headers["Upload-Offset"]), 0
            except (Unreachable, ProblemError) as failure:
                failures += 1
                passing = isinstance(failure, Unreachable) or failure.status in (502, 503, 504)
                if failures >= TRIES or not passing:
                    raise
                yield Pause(0.5 * failures)
                told = yield from request("HEAD", location, headers=TUS)
                offset = int(told.headers["Upload-Offset"])
            if on_sent is not None:
                on_sent(offset, total)
    return location.rstrip("/").rsplit("/", 1)[-1]
