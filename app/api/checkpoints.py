"""/v1/checkpoints"""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from sqlalchemy.orm import Session

from app.api import reading
from app.api.bodies import is_json, json_body, store_body
from app.api.caching import require_unchanged
from app.api.deps import Context, ContextDep, IdempotencyKey, IfMatch, IfNoneMatch
from app.api.files import WEIGHTS, download
from app.api.once import accepted, answer_once
from app.api.openapi import raw_or_json
from app.api.plain_weights import plain_zip
from app.api.problems import responses
from app.db.tables import Checkpoint
from app.errors import Conflict, InvalidRequest
from app.queue.states import ResourceState
from app.schemas.checkpoints import CheckpointCreate, CheckpointOptions, CheckpointQuery, CheckpointView
from app.schemas.common import Page
from app.services import checkpoints, uploads
from app.services.idempotency import Answer
from app.storage.blobs import Stored
from app.storage.remember import remember_blob

LOOK = reading.Look(Checkpoint, lambda _session, row, _asked: CheckpointView.model_validate(row))
router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])


@router.post(
    "",
    status_code=202,
    response_model=CheckpointView,
    responses=responses(400, 409, 413, 415, 507),
    openapi_extra=raw_or_json("CheckpointCreate", "the file of weights; the parameters go into the query"),
)
async def create_checkpoint(
    request: Request,
    context: ContextDep,
    options: Annotated[CheckpointOptions, Query()],
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Add a checkpoint: the file as the raw body, or JSON with an upload or a source to fetch it from."""
    if is_json(request):
        body = await json_body(request, CheckpointCreate, context.settings.max_json_bytes)
        return await run_in_threadpool(_from_elsewhere, request, context, body, key)
    stored = await store_body(request, context.store, context.settings.max_upload_bytes)
    return await run_in_threadpool(_from_body, request, context, options, stored, key)


def _from_body(
    request: Request, context: Context, options: CheckpointOptions, stored: Stored, key: str | None
) -> JSONResponse:
    _require_digest(options.sha256, stored.sha256)

    def act(session: Session) -> Answer:
        sha256 = remember_blob(session, stored, "application/octet-stream")
        made = checkpoints.create(
            session,
            context.workspace_id,
            options,
            source_sha256=sha256,
            max_attempts=context.settings.max_attempts,
        )
        return accepted(CheckpointView.model_validate(made), f"/v1/checkpoints/{made.id}")

    return answer_once(request, context, key, [options.model_dump(mode="json"), stored.sha256], act)


def _from_elsewhere(
    request: Request, context: Context, body: CheckpointCreate, key: str | None
) -> JSONResponse:
    if body.upload_id is not None:
        uploads.make_whole(context.database, context.store, context.workspace_id, body.upload_id)

    def act(session: Session) -> Answer:
        source: dict[str, Any] = {}
        if body.upload_id is not None:
            upload = uploads.complete(session, context.workspace_id, body.upload_id)
            _require_digest(body.sha256, upload.sha256)
            name = PurePosixPath(upload.filename).stem
            source = {
                "source_sha256": upload.sha256,
                "from_upload": upload.id,
                "default_name": name or "checkpoint",
            }
        elif body.source is not None:
            checkpoints.check_source(context.settings, body.source)
            name = PurePosixPath(body.source.split("://")[-1]).name
            source = {"source": body.source, "default_name": name or "checkpoint"}
        made = checkpoints.create(
            session,
            context.workspace_id,
            body,
            provenance=body.provenance,
            max_attempts=context.settings.max_attempts,
            **source,
        )
        return accepted(CheckpointView.model_validate(made), f"/v1/checkpoints/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json"), act)


def _require_digest(asked: str | None, found: str | None) -> None:
    if asked is not None and asked != found:
        message = f"the file that arrived has the digest {found}"
        raise InvalidRequest(
            f"{message}, not the one given; was it damaged on the way?",
            errors=[{"pointer": "/sha256", "message": message}],
        )


@router.get("", response_model=Page[CheckpointView])
def list_checkpoints(
    request: Request, context: ContextDep, asked: Annotated[CheckpointQuery, Query()]
) -> Response:
    """Checkpoints, newest first."""
    listing = checkpoints.LISTING
    return reading.page(request, context, listing, asked, lambda _, row: CheckpointView.model_validate(row))


@router.get("/{id}", response_model=CheckpointView, responses=responses(404))
def get_checkpoint(id: str, context: ContextDep, if_none_match: IfNoneMatch = None) -> Response:
    """One checkpoint; poll it with `If-None-Match` until its state is `ready` or `invalid`."""
    return reading.one(context, LOOK, id, None, if_none_match)


@router.get("/{id}/weights", response_class=FileResponse, responses=responses(404, 409) | WEIGHTS)
def get_checkpoint_weights(
    id: str,
    context: ContextDep,
    form: Annotated[
        Literal["kept", "plain"],
        Query(
            alias="as",
            description="plain: of a fine-tuned one, a zip that torchvision or transformers alone load",
        ),
    ] = "kept",
) -> Response:
    """The weights as safetensors; with `as=plain` a zip with what their own library needs beside them."""
    with context.database.reading() as session:
        found = checkpoints.find(session, context.workspace_id, id)
    if found.state != ResourceState.READY:
        raise Conflict(f"the checkpoint {id} is {found.state}; it has weights once it is ready")
    if form == "plain":
        return plain_zip(context.store, id, found.plain, found.weights_sha256)
    return download(context.store, found.weights_sha256, "application/octet-stream", f"{id}.safetensors")


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def delete_checkpoint(id: str, context: ContextDep, if_match: IfMatch = None) -> None:
    """Delete a checkpoint that is a candidate of no ranking."""
    with context.database.unit_of_work() as session:
        require_unchanged(if_match, checkpoints.find(session, context.workspace_id, id).version)
        checkpoints.remove(session, context.workspace_id, id)
