"""Stored files as answers, and a look into those that were uploaded before."""

import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from fastapi.responses import FileResponse, Response, StreamingResponse

from app.db.work import Work, name_of
from app.errors import Conflict, NotFound
from app.queue.states import ENDED
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
RASTER = _of_type("image/jpeg", "image/png", "image/webp", "image/bmp")
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


def table(text: str, filename: str) -> Response:
    """A CSV table to be kept as a file."""
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(text, media_type="text/csv", headers=headers)


def picture(store: BlobStore, row: Work, kind: str, name: str) -> Response:
    """One of a row's files, by its name. `kind`: `pictures` or `plots`, a column of the row. Raises NotFound."""
    for file in getattr(row, kind) or []:
        if file["file_name"] == name and file["media_type"].startswith("image/"):
            return download(store, file["sha256"], file["media_type"], f"{row.id}-{name}", inline=True)
    raise NotFound(f"the {name_of(type(row))} {row.id} is {row.state} and has no {kind[:-1]} {name!r}")


def plot(store: BlobStore, row: Work, sha256: str | None) -> Response:
    """The plot of work that has ended. Raises Conflict before that, NotFound where there is none."""
    if row.state not in ENDED:
        raise Conflict(f"the {name_of(type(row))} is {row.state}; there is a plot once it has succeeded")
    if sha256 is None:
        raise NotFound(f"the {name_of(type(row))} {row.id} {row.state} without a plot")
    return download(store, sha256, "image/png", f"{row.id}.png", inline=True)


_PICTURES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}  # those that the canonical form has
_PICTURE_NAME = re.compile(r"[0-9]{1,12}(\.[a-z]{3,4})")


def picture_of_archive(store: BlobStore, sha256: str | None, name: str, filename: str) -> Response:
    """A picture out of a dataset's zip. Raises NotFound."""
    named = _PICTURE_NAME.fullmatch(name)
    if named is None or named[1] not in _PICTURES:
        raise NotFound("pictures are named by their place in the dataset, such as 000001.jpg")
    answer = member(store, sha256, f"images/{name}", _PICTURES[named[1]], filename)
    answer.headers["Content-Disposition"] = f'inline; filename="{filename}"'
    answer.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    answer.headers["ETag"] = f'"{sha256}-{name}"'
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return answer


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


def look_at_stored(store: BlobStore, sha256: str | None, look: Callable[[bytes], None]) -> None:
    """Shows the first bytes of a stored file to `look`, which may refuse. Raises NotFound."""
    if sha256 is None:
        raise NotFound("there is no such file")
    with store.open(sha256) as file:
        look(file.read(NEEDED_BYTES))


def _pieces(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    with archive, archive.open(name) as file:
        while piece := file.read(_PIECE):
            yield piece
