"""/v1/verifications and /v1/subsets"""

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from app.api.caching import cached, require_unchanged
from app.api.deps import Context, ContextDep, IdempotencyKey, IfMatch, IfNoneMatch
from app.api.events import Reader, verification_reader
from app.api.files import CSV, PICTURE, download
from app.api.once import accepted, answer_once
from app.api.paging import paged
from app.api.problems import responses
from app.api.waiting import until_news
from app.db.tables import Verification
from app.errors import NotFound
from app.queue.states import ENDED
from app.schemas.common import Page, WaitQuery
from app.schemas.verifications import (
    Curves,
    SubsetQuery,
    SubsetSummary,
    SubsetView,
    VerificationCreate,
    VerificationQuery,
    VerificationSummary,
    VerificationView,
)
from app.services import subsets, verification_views, verifications
from app.services.idempotency import Answer

router = APIRouter(prefix="/v1/verifications", tags=["verifications"])
subsets_router = APIRouter(prefix="/v1/subsets", tags=["verifications"])


@router.post("", status_code=202, response_model=VerificationView, responses=responses(400, 409, 413))
def create_verification(
    request: Request, context: ContextDep, body: VerificationCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Fine-tune a checkpoint on a dataset by a recipe, to know its mAP."""

    def act(session: Session) -> Answer:
        made = verifications.create(session, context.workspace_id, body, context.settings)
        return accepted(verification_views.view(session, made), f"/v1/verifications/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json", exclude_unset=True), act)


@router.get("", response_model=Page[VerificationSummary])
def list_verifications(
    request: Request, response: Response, context: ContextDep, asked: Annotated[VerificationQuery, Query()]
) -> Page:
    """Verifications, newest first."""
    with context.database.reading() as session:
        found, cursor = verifications.listed(session, context.workspace_id, asked)
        return paged(request, response, [verification_views.summary(row) for row in found], cursor)


@router.get("/{id}/curves.csv", response_class=Response, responses=responses(404) | CSV)
def get_verification_curves_csv(id: str, context: ContextDep) -> Response:
    """The learning curves as a table, so far or whole."""
    with context.database.reading() as session:
        row = verifications.find(session, context.workspace_id, id)
        text = verification_views.curves_csv(verification_views.curves(session, row))
    headers = {"Content-Disposition": f'attachment; filename="{id}.csv"'}
    return Response(text, media_type="text/csv", headers=headers)


@router.get("/{id}/curves", response_model=Curves, responses=responses(404))
def get_verification_curves(id: str, context: ContextDep, if_none_match: IfNoneMatch = None) -> Response:
    """The learning curves, so far or whole; new points also come as events of kind `curve`."""
    with context.database.reading() as session:
        row = verifications.find(session, context.workspace_id, id)
        return cached(
            if_none_match, row.version, lambda: Curves(items=verification_views.curves(session, row))
        )


@router.get("/{id}/pictures/{name}", response_class=FileResponse, responses=responses(404) | PICTURE)
def get_verification_picture(id: str, name: str, context: ContextDep) -> Response:
    """Predictions beside the truth, for one image."""
    return _file(context, id, "pictures", name)


@router.get("/{id}/plots/{name}", response_class=FileResponse, responses=responses(404) | PICTURE)
def get_verification_plot(id: str, name: str, context: ContextDep) -> Response:
    """A plot: learning curves, precision against recall."""
    return _file(context, id, "plots", name)


@router.get("/{id}/events", response_class=EventSourceResponse, responses=responses(404))
async def get_verification_events(
    reader: Annotated[Reader, Depends(verification_reader)],
) -> AsyncIterable[ServerSentEvent]:
    """States, progress and points of the learning curves, as server-sent events."""
    async for event in reader.events():
        yield event


@router.get("/{id}", response_model=VerificationView, responses=responses(404))
async def get_verification(
    id: str,
    context: ContextDep,
    asked: Annotated[WaitQuery, Query()],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One verification: what was asked, how far it is, and what came of it."""
    if asked.wait > 0:
        await until_news(context, Verification, id, if_none_match, asked.wait)
    return await run_in_threadpool(_read, context, id, if_none_match)


def _read(context: Context, id: str, if_none_match: str | None) -> Response:
    with context.database.reading() as session:
        row = verifications.find(session, context.workspace_id, id)
        return cached(if_none_match, row.version, lambda: verification_views.view(session, row))


@router.post("/{id}:cancel", status_code=202, response_model=VerificationView, responses=responses(404))
def cancel_verification(
    id: str, request: Request, context: ContextDep, key: IdempotencyKey = None
) -> JSONResponse:
    """Stop a verification. One that has ended stays as it is, and answers 200."""

    def act(session: Session) -> Answer:
        return _answer(session, verifications.cancel(session, context.workspace_id, id))

    return answer_once(request, context, key, None, act)


@router.post("/{id}:retry", status_code=202, response_model=VerificationView, responses=responses(404, 409))
def retry_verification(
    id: str, request: Request, context: ContextDep, key: IdempotencyKey = None
) -> JSONResponse:
    """Try a failed or cancelled verification again, from the state it had reached."""

    def act(session: Session) -> Answer:
        return _answer(session, verifications.retry(session, context.workspace_id, id))

    return answer_once(request, context, key, None, act)


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def delete_verification(id: str, context: ContextDep, if_match: IfMatch = None) -> None:
    """Delete a verification that has ended; the fine-tuned checkpoint stays."""
    with context.database.unit_of_work() as session:
        require_unchanged(if_match, verifications.find(session, context.workspace_id, id).version)
        verifications.remove(session, context.workspace_id, id)


@subsets_router.get("", response_model=Page[SubsetSummary])
def list_subsets(
    request: Request, response: Response, context: ContextDep, asked: Annotated[SubsetQuery, Query()]
) -> Page:
    """Subsets of training images, newest first, without their lists."""
    with context.database.reading() as session:
        found, cursor = subsets.listed(session, context.workspace_id, asked)
        return paged(request, response, [verification_views.subset_summary(row) for row in found], cursor)


@subsets_router.get("/{id}", response_model=SubsetView, responses=responses(404))
def get_subset(id: str, context: ContextDep, if_none_match: IfNoneMatch = None) -> Response:
    """The images (and with shots the boxes) that verifications see; drawn once, by the first of them."""
    with context.database.reading() as session:
        row = subsets.find(session, context.workspace_id, id)
        version = 1 if row.drawn_at is None else 2
        return cached(if_none_match, version, lambda: verification_views.subset_view(row))


def _file(context: Context, id: str, kind: str, name: str) -> Response:
    with context.database.reading() as session:
        row = verifications.find(session, context.workspace_id, id)
    for file in getattr(row, kind) or []:
        if file["file_name"] == name:
            return download(context.store, file["sha256"], file["media_type"], f"{id}-{name}", inline=True)
    raise NotFound(f"the verification {id} is {row.state} and has no {kind[:-1]} {name!r}")


def _answer(session: Session, row: Verification) -> Answer:
    session.flush()
    body = verification_views.view(session, row).model_dump(mode="json")
    return Answer(200 if row.state in ENDED else 202, body, f"/v1/verifications/{row.id}")
