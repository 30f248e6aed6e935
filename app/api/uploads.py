"""/v1/uploads: resumable uploads by tus 1.0.0 (core, creation, expiration, termination, checksum)"""

import base64
import binascii
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from app.api.bodies import receive_part
from app.api.deps import Context, ContextDep, IdempotencyKey
from app.api.once import answer_once
from app.api.openapi import raw
from app.api.problems import responses
from app.db.tables import Upload
from app.errors import (
    ChecksumMismatch,
    InvalidRequest,
    MalformedRequest,
    PreconditionFailed,
    UnsupportedMedia,
)
from app.schemas.uploads import UploadView
from app.services import uploads
from app.services.idempotency import Answer, fingerprint

VERSION = "1.0.0"
PART_BYTES = 64 << 20
_OFFSET_TYPE = "application/offset+octet-stream"
# bytes of each digest; sha1 is what tus asks every server for
CHECKSUMS = {"sha256": 32, "sha1": 20}
_TUS = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


def resumable(version: Annotated[str | None, Header(alias="Tus-Resumable", max_length=20)] = None) -> None:
    """Raises PreconditionFailed for another version of the protocol."""
    if version != VERSION:
        raise PreconditionFailed(f"send the header Tus-Resumable: {VERSION}; this is the version spoken here")


Resumable = Depends(resumable)


@router.options("", status_code=204, response_class=Response)
def get_upload_options(context: ContextDep) -> Response:
    """What of tus is spoken here."""
    return Response(
        status_code=204,
        headers=_TUS
        | {
            "Tus-Version": VERSION,
            "Tus-Extension": "creation,expiration,termination,checksum",
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
            "Tus-Max-Size": str(context.settings.max_upload_bytes),
        },
    )


@router.post(
    "",
    status_code=201,
    response_model=UploadView,
    responses=responses(400, 412, 413, 507),
    dependencies=[Resumable],
)
def create_upload(
    request: Request,
    context: ContextDep,
    length: Annotated[int, Header(alias="Upload-Length", ge=0, le=2**62)],
    metadata: Annotated[str, Header(alias="Upload-Metadata", max_length=4000)] = "",
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Begin an upload of `Upload-Length` bytes; its address is in `Location`."""
    filename = _filename(metadata)

    def act(session: Session) -> Answer:
        made = uploads.create(
            session, context.workspace_id, context.settings, context.store, length, filename
        )
        return Answer(201, shown(made).model_dump(mode="json"), f"/v1/uploads/{made.id}")

    answer = answer_once(request, context, key, fingerprint(length, metadata), act)
    answer.headers.update(_TUS)
    return answer


@router.get("/{id}", response_model=UploadView, responses=responses(404))
def get_upload(id: str, context: ContextDep) -> UploadView:
    """How much has arrived."""
    return shown(_whole(context, id))


@router.head("/{id}", response_class=Response, responses=responses(404, 412), dependencies=[Resumable])
def head_upload(id: str, context: ContextDep) -> Response:
    """How much has arrived, in `Upload-Offset`: the next part begins there."""
    upload = _whole(context, id)
    return Response(headers=_headers(upload) | {"Upload-Length": str(upload.length_bytes)})


@router.patch(
    "/{id}",
    status_code=204,
    response_class=Response,
    responses=responses(400, 404, 409, 412, 413, 415, 460, 507),
    dependencies=[Resumable],
    openapi_extra=raw(_OFFSET_TYPE),
)
async def append_upload(
    id: str,
    request: Request,
    context: ContextDep,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0, le=2**62)],
    checksum: Annotated[str | None, Header(alias="Upload-Checksum", max_length=200)] = None,
) -> Response:
    """Send the bytes that begin at `Upload-Offset`. What arrived before a connection broke is kept."""
    if request.headers.get("content-type", "").strip().lower() != _OFFSET_TYPE:
        raise UnsupportedMedia(f"the part of an upload has Content-Type: {_OFFSET_TYPE}")
    digest = _digest(checksum)
    upload = await run_in_threadpool(_found, context, id)
    uploads.check_offset(upload, offset)
    while offset < upload.length_bytes:
        offset, more = await _receive(request, context, upload, offset, digest)
        if not more:
            break
    return Response(status_code=204, headers=_headers(await run_in_threadpool(_found, context, id)))


async def _receive(
    request: Request, context: Context, upload: Upload, offset: int, digest: tuple[str, bytes] | None
) -> tuple[int, bool]:
    """Keeps the next PART_BYTES of the body, or all of one with a checksum: (new offset, is there more)."""
    limit = upload.length_bytes - offset
    writer = await run_in_threadpool(
        context.store.writer,
        limit_bytes=limit,
        expected_bytes=min(limit, PART_BYTES),
        digest=digest[0] if digest else "sha256",
    )
    gone = None
    try:
        try:
            more = await receive_part(request, writer, None if digest else PART_BYTES)
        except ClientDisconnect as failure:
            gone, more = failure, False
        if digest is not None and (gone or writer.digest_by(digest[0]) != digest[1]):
            raise gone or ChecksumMismatch(
                f"these bytes have another {digest[0]} than Upload-Checksum says; send the part again"
            )
        if writer.size_bytes:
            arguments = (context.database, context.store, context.workspace_id, upload.id, offset, writer)
            await run_in_threadpool(uploads.add_part, *arguments, context.settings.upload_expires_s)
    finally:
        await run_in_threadpool(writer.abort)
    if gone is not None:
        raise gone
    return offset + writer.size_bytes, more


@router.delete(
    "/{id}", status_code=204, response_class=Response, responses=responses(404, 412), dependencies=[Resumable]
)
def delete_upload(id: str, context: ContextDep) -> Response:
    """End an upload. A dataset or checkpoint made of it stays."""
    with context.database.unit_of_work() as session:
        uploads.remove(session, context.store, context.workspace_id, id)
    return Response(status_code=204, headers=_TUS)


def shown(upload: Upload) -> UploadView:
    return UploadView(
        state="complete" if upload.sha256 else "receiving",
        **{name: getattr(upload, name) for name in UploadView.model_fields if name != "state"},
    )


def _found(context: Context, id: str) -> Upload:
    with context.database.reading() as session:
        return uploads.find(session, context.workspace_id, id)


def _whole(context: Context, id: str) -> Upload:
    uploads.make_whole(context.database, context.store, context.workspace_id, id)
    return _found(context, id)


def _headers(upload: Upload) -> dict[str, str]:
    expires = format_datetime(upload.expires_at, usegmt=True)
    return _TUS | {"Upload-Offset": str(upload.offset_bytes), "Upload-Expires": expires}


def _filename(metadata: str) -> str:
    """The file's name from `Upload-Metadata: filename <base64>, ...`. Raises MalformedRequest."""
    for pair in metadata.split(","):
        name, _, value = pair.strip().partition(" ")
        if name in ("filename", "name"):
            try:
                text = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as failure:
                raise MalformedRequest(
                    "Upload-Metadata is `name base64` pairs with commas between them"
                ) from failure
            return "".join(c for c in text if c.isprintable())[:255]
    return ""


def _digest(checksum: str | None) -> tuple[str, bytes] | None:
    """(algorithm, digest) of `Upload-Checksum: sha256 <base64>`. Raises MalformedRequest and InvalidRequest."""
    if checksum is None:
        return None
    algorithm, _, value = checksum.partition(" ")
    if algorithm not in CHECKSUMS:
        raise MalformedRequest(
            f"the checksum algorithm {algorithm!r} is not known; use {' or '.join(CHECKSUMS)}"
        )
    try:
        digest = base64.b64decode(value, validate=True)
    except binascii.Error as failure:
        raise MalformedRequest(f"Upload-Checksum is `{algorithm}` and the digest in base64") from failure
    if len(digest) != CHECKSUMS[algorithm]:
        raise InvalidRequest(f"a digest of {algorithm} has {CHECKSUMS[algorithm]} bytes")
    return algorithm, digest
