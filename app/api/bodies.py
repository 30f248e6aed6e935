"""Bodies: JSON within a limit, and files streamed to disk without ever being held in memory."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError

from app.api.problems import invalid
from app.errors import InvalidRequest, MalformedRequest, TooLarge, UnsupportedMedia
from app.storage.blobs import BlobStore, Stored, Writer
from app.storage.sniff import NEEDED_BYTES, archive_kind, describe

Model = TypeVar("Model", bound=BaseModel)
Look = Callable[[bytes], None]
_PIECE = 1 << 20


def is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


async def json_body(request: Request, model: type[Model], limit_bytes: int) -> Model:
    """The body as `model`. Raises TooLarge, MalformedRequest and InvalidRequest."""
    if request.query_params:
        raise InvalidRequest("with a JSON body everything goes into the body, nothing into the query")
    text = bytearray()
    async for chunk in request.stream():
        text += chunk
        if len(text) > limit_bytes:
            raise TooLarge(f"a JSON body may have {limit_bytes:,} bytes; send files as raw bodies or uploads")
    try:
        return model.model_validate_json(bytes(text))
    except ValidationError as failure:
        faults = failure.errors()
        if faults[0]["type"] == "json_invalid":
            raise MalformedRequest(f"the body is not JSON: {faults[0]['msg']}") from failure
        raise invalid([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from failure


def declared_length(request: Request) -> int | None:
    """Content-Length; None for a body sent in chunks."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def require_raw(request: Request) -> None:
    """Raises UnsupportedMedia for forms and compressed transfers, whose bytes are not the file's."""
    if request.headers.get("content-type", "").lower().lstrip().startswith("multipart/"):
        raise UnsupportedMedia(
            "forms are not taken: send the file itself as the body (curl --data-binary @file)"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Content-Encoding is not taken: send the file as it is")


async def store_body(
    request: Request, store: BlobStore, limit_bytes: int, look: Look | None = None
) -> Stored:
    """Streams the whole body into the store. `look` sees the first bytes and may refuse.

    Raises InvalidRequest for nothing, TooLarge, StorageFull, and MalformedRequest for a body cut short; then
    nothing of it stays.
    """
    require_raw(request)
    length = declared_length(request)
    if length is not None and length > limit_bytes:
        raise TooLarge(
            f"{length:,} bytes are more than the {limit_bytes:,} allowed (DETRANK_MAX_UPLOAD_BYTES)"
        )
    writer = await run_in_threadpool(store.writer, limit_bytes=limit_bytes, expected_bytes=length or 0)
    try:
        await receive(request, writer, look)
        if writer.size_bytes == 0:
            raise InvalidRequest(
                "the body is empty: send the file itself as the body (curl --data-binary @file)"
            )
        if length is not None and writer.size_bytes != length:
            raise MalformedRequest(f"{writer.size_bytes:,} of {length:,} bytes arrived; send it again")
        return await run_in_threadpool(writer.commit)
    finally:
        await run_in_threadpool(writer.abort)


async def receive(request: Request, writer: Writer, look: Look | None = None) -> None:
    """Writes the body as it comes, in large pieces."""
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if look is not None and len(piece) >= NEEDED_BYTES:
            look(bytes(piece[:NEEDED_BYTES]))
            look = None
        if look is None and len(piece) >= _PIECE:
            await run_in_threadpool(writer.write, bytes(piece))
            piece.clear()
    if look is not None and piece:
        look(bytes(piece[:NEEDED_BYTES]))
    if piece:
        await run_in_threadpool(writer.write, bytes(piece))


async def receive_part(request: Request, writer: Writer, most_bytes: int | None) -> bool:
    """Writes the body until it ends or about `most_bytes` are written; True where there may be more of it.

    Called again it goes on in the same body. What came before a ClientDisconnect is written.
    """
    if "detrank.stream" not in request.scope:
        request.scope["detrank.stream"] = request.stream()
    stream = request.scope["detrank.stream"]
    piece = bytearray()
    try:
        async for chunk in stream:
            piece += chunk
            if len(piece) >= _PIECE:
                await run_in_threadpool(writer.write, bytes(piece))
                piece.clear()
                if most_bytes is not None and writer.size_bytes >= most_bytes:
                    return True
        return False
    finally:
        if piece:
            await run_in_threadpool(writer.write, bytes(piece))


def look_for_archive(head: bytes) -> None:
    """Raises UnsupportedMedia for a body that is no archive, whatever its name says."""
    if archive_kind(head) is None:
        raise UnsupportedMedia(f"the body is {describe(head)}; send a dataset as zip, tar or tar.gz")
