"""Stored files as answers, and a look into those that were uploaded before."""

import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from fastapi.responses import FileResponse, Response, StreamingResponse

from app.errors import NotFound
from app.storage.blobs import BlobStore
from app.storage.sniff import NEEDED_BYTES

_PIECE = 1 << 20


def _of_type(*media_types: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "format": "binary"}
    content = {media_type: {"schema": schema} for media_type in media_types}
    return {200: {"description": "the file", "content": content}}


ZIP = _of_type("application/zip")
PREVIEW = _of_type("image/jpeg")
PNG = _of_type("image/png")
PICTURE = _of_type("image/png", "image/jpeg")
CSV = _of_type("text/csv")
HTML = _of_type("text/html")
ANY = _of_type("text/csv", "text/html", "text/markdown")
WEIGHTS = _of_type("application/octet-stream", "application/zip")


def download(
    store: BlobStore, sha256: str | None, media_type: str, filename: str, *, inline: bool = False
) -> Response:
    """A stored file, with ranges and a strong ETag. Raises NotFound where there is none (any more)."""
    if sha256 is None:
        raise NotFound("there is no such file")
    path = store.local_path(sha256)
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    # what others uploaded is never to run as a page of ours
    headers |= {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
    kind = "inline" if inline else "attachment"
    return FileResponse(
        path, media_type=media_type, filename=filename, content_disposition_type=kind, headers=headers
    )


def member(store: BlobStore, sha256: str | None, name: str, media_type: str, filename: str) -> Response:
    """One file out of a stored zip, streamed."""
    if sha256 is None:
        raise NotFound("there is no such file")
    archive = zipfile.ZipFile(store.local_path(sha256))
    try:
        size = archive.getinfo(name).file_size
    except KeyError as missing:
        archive.close()
        raise NotFound(f"the archive has no {name}") from missing
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{filename}"',
        "ETag": f'"{sha256}"',
    }
    return StreamingResponse(_pieces(archive, name), media_type=media_type, headers=headers)


def look_at_stored(store: BlobStore, sha256: str, look: Callable[[bytes], None]) -> None:
    """Shows the first bytes of a stored file to `look`, which may refuse."""
    with store.open(sha256) as file:
        look(file.read(NEEDED_BYTES))


def _pieces(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    with archive, archive.open(name) as file:
        while piece := file.read(_PIECE):
            yield piece
