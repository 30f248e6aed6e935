"""/v1/datasets"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from sqlalchemy.orm import Session

from app.api import reading
from app.api.bodies import declared_length, is_json, json_body, look_for_archive, store_body
from app.api.caching import require_unchanged
from app.api.deps import Context, ContextDep, IdempotencyKey, IfMatch, IfNoneMatch
from app.api.files import PREVIEW, RASTER, ZIP, download, look_at_stored, member, picture_of_archive
from app.api.once import accepted, answer_once
from app.api.openapi import raw_or_json
from app.api.problems import responses
from app.db.tables import Dataset
from app.errors import InvalidRequest, NotFound
from app.schemas.common import Page
from app.schemas.datasets import DatasetCreate, DatasetOptions, DatasetQuery, DatasetView
from app.services import dataset_sources, datasets, uploads
from app.services.idempotency import Answer
from app.storage.blobs import Stored
from app.storage.remember import remember_blob

LOOK = reading.Look(Dataset, lambda _session, row, _asked: shown(row))
router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=202,
    response_model=DatasetView,
    responses=responses(400, 409, 413, 415, 507),
    openapi_extra=raw_or_json("DatasetCreate", "a zip, tar or tar.gz; the parameters go into the query"),
)
async def create_dataset(
    request: Request,
    context: ContextDep,
    options: Annotated[DatasetOptions, Query()],
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Add a dataset: the archive as the raw body, or JSON.

    `curl --data-binary @set.zip '.../v1/datasets?name=mine'`
    """
    if is_json(request):
        body = await json_body(request, DatasetCreate, context.settings.max_json_bytes)
        return await run_in_threadpool(_from_elsewhere, request, context, body, key)
    datasets.check_options(options)
    if declared_length(request) == 0:
        raise InvalidRequest(
            "the body is empty: send the archive itself as the body (curl --data-binary @set.zip)"
        )
    stored = await store_body(request, context.store, context.settings.max_upload_bytes, look_for_archive)
    return await run_in_threadpool(_from_body, request, context, options, stored, key)


def _from_body(
    request: Request, context: Context, options: DatasetOptions, stored: Stored, key: str | None
) -> JSONResponse:
    def act(session: Session) -> Answer:
        sha256 = remember_blob(session, stored, "application/octet-stream")
        made = datasets.create(
            session,
            context.workspace_id,
            options,
            source_sha256=sha256,
            max_attempts=context.settings.max_attempts,
        )
        return accepted(shown(made), f"/v1/datasets/{made.id}")

    return answer_once(request, context, key, [options.model_dump(mode="json"), stored.sha256], act)


def _from_elsewhere(request: Request, context: Context, body: DatasetCreate, key: str | None) -> JSONResponse:
    datasets.check_options(body)
    stays = body.source is not None and "://" in body.source
    stays_at = dataset_sources.allowed(context.settings, body.source) if body.source and stays else None
    if body.upload_id is not None:
        uploads.make_whole(context.database, context.store, context.workspace_id, body.upload_id)
        with context.database.reading() as session:
            upload = uploads.complete(session, context.workspace_id, body.upload_id)
        # before the transaction: storage may be far away, and SQLite has one writer
        look_at_stored(context.store, upload.sha256, look_for_archive)

    def act(session: Session) -> Answer:
        source: dict[str, Any] = {}
        if body.upload_id is not None:
            upload = uploads.complete(session, context.workspace_id, body.upload_id)
            source = {"source_sha256": upload.sha256, "from_upload": upload.id}
        elif stays_at is not None:
            source = {"stays_at": stays_at}
        elif body.source is not None:
            source = {"source_path": str(datasets.local_source(context.settings, body.source))}
        made = datasets.create(
            session, context.workspace_id, body, max_attempts=context.settings.max_attempts, **source
        )
        return accepted(shown(made), f"/v1/datasets/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json"), act)


@router.get("", response_model=Page[DatasetView])
def list_datasets(request: Request, context: ContextDep, asked: Annotated[DatasetQuery, Query()]) -> Response:
    """Datasets, newest first."""
    return reading.page(request, context, datasets.LISTING, asked, lambda _, row: shown(row))


@router.get("/{id}", response_model=DatasetView, responses=responses(404))
def get_dataset(id: str, context: ContextDep, if_none_match: IfNoneMatch = None) -> Response:
    """One dataset; poll it with `If-None-Match` until its state is `ready` or `invalid`."""
    return reading.one(context, LOOK, id, None, if_none_match)


@router.get("/{id}/report", response_model=dict[str, Any], responses=responses(404, 409))
def get_dataset_report(id: str, context: ContextDep) -> dict[str, Any]:
    """What was dropped or repaired, with file and reason."""
    dataset = _read(context, id)
    if dataset.report is None:
        datasets.ready(dataset)
        raise NotFound(f"the dataset {id} has no report")
    return dataset.report


@router.get("/{id}/annotations", response_model=dict[str, Any], responses=responses(404, 409))
def get_dataset_annotations(id: str, context: ContextDep) -> Response:
    """All annotations as COCO JSON, in the original frame of the upright picture."""
    dataset = datasets.ready(_read(context, id))
    if dataset.stays_at is not None:
        raise NotFound(
            f"the pictures of {id} stay at {dataset.stays_at}, so where its boxes lie in pixels is known only of samples; "
            f"GET /v1/datasets/{id}/archive has the annotations as they were read"
        )
    return member(context.store, dataset.archive_sha256, "annotations.json", "application/json", f"{id}.json")


@router.get("/{id}/archive", response_class=FileResponse, responses=responses(404, 409) | ZIP)
def get_dataset_archive(id: str, context: ContextDep) -> Response:
    """The dataset in its canonical form: annotations.json and images, as a zip.

    Of one whose pictures stay elsewhere: the annotations as they were read, and size and mark of each picture.
    """
    dataset = datasets.ready(_read(context, id))
    return download(context.store, dataset.archive_sha256, "application/zip", f"{id}.zip")


@router.get("/{id}/images/{name}", response_class=Response, responses=responses(404, 409) | RASTER)
def get_dataset_image(id: str, name: str, context: ContextDep) -> Response:
    """A picture by its file name in the canonical form, e.g. `000001.jpg`: upright, without boxes."""
    dataset = datasets.ready(_read(context, id))
    if dataset.stays_at is not None:
        raise NotFound(f"the pictures of {id} stay at {dataset.stays_at}")
    return picture_of_archive(context.store, dataset.archive_sha256, name, f"{id}-{name}")


@router.get("/{id}/previews/{number}", response_class=FileResponse, responses=responses(404) | PREVIEW)
def get_dataset_preview(id: str, number: int, context: ContextDep) -> Response:
    """A picture with its boxes drawn, counted from 0."""
    previews = _read(context, id).previews or []
    if not 0 <= number < len(previews):
        raise NotFound(f"the dataset {id} has {len(previews)} previews, counted from 0")
    return download(
        context.store, previews[number]["sha256"], "image/jpeg", f"{id}-{number}.jpg", inline=True
    )


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def delete_dataset(id: str, context: ContextDep, if_match: IfMatch = None) -> None:
    """Delete a dataset that no ranking uses."""
    with context.database.unit_of_work() as session:
        require_unchanged(if_match, datasets.find(session, context.workspace_id, id).version)
        datasets.remove(session, context.workspace_id, id)


def shown(dataset: Dataset) -> DatasetView:
    links = [f"/v1/datasets/{dataset.id}/previews/{number}" for number in range(len(dataset.previews or []))]
    fields = {name: getattr(dataset, name) for name in DatasetView.model_fields if name != "previews"}
    return DatasetView(**fields, previews=links)


def _read(context: Context, id: str) -> Dataset:
    with context.database.reading() as session:
        return datasets.find(session, context.workspace_id, id)
