"""/v1/studies"""

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from app.api.caching import cached, require_unchanged
from app.api.deps import Context, ContextDep, IdempotencyKey, IfMatch, IfNoneMatch
from app.api.events import Reader, study_reader
from app.api.files import ANY, CSV, HTML, PNG, download
from app.api.once import accepted, answer_once
from app.api.paging import paged
from app.api.problems import responses
from app.api.waiting import until_news
from app.db.tables import Study
from app.errors import NotFound
from app.queue.states import ENDED
from app.schemas.common import Page, WaitQuery
from app.schemas.studies import StudyCreate, StudyQuery, StudySummary, StudyView
from app.services import studies, study_views
from app.services.idempotency import Answer

router = APIRouter(prefix="/v1/studies", tags=["studies"])


@router.post("", status_code=202, response_model=StudyView, responses=responses(400, 409, 413))
def create_study(
    request: Request, context: ContextDep, body: StudyCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Score and fine-tune every candidate on every dataset, and measure which metric deserved trust."""

    def act(session: Session) -> Answer:
        made = studies.create(session, context.workspace_id, body, context.settings)
        return accepted(study_views.view(session, made), f"/v1/studies/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json", exclude_unset=True), act)


@router.get("", response_model=Page[StudySummary])
def list_studies(
    request: Request, response: Response, context: ContextDep, asked: Annotated[StudyQuery, Query()]
) -> Page:
    """Studies, newest first."""
    with context.database.reading() as session:
        found, cursor = studies.listed(session, context.workspace_id, asked)
        return paged(request, response, [study_views.summary(session, row) for row in found], cursor)


@router.get("/{id}.html", response_class=FileResponse, responses=responses(404) | HTML)
def get_study_report(id: str, context: ContextDep) -> Response:
    """The report as one page that needs nothing else."""
    answer = _file(context, id, study_views.REPORT, f"{id}.html")
    # its pictures and style are in it; it runs nothing
    answer.headers["Content-Security-Policy"] = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
    return answer


@router.get("/{id}.csv", response_class=FileResponse, responses=responses(404) | CSV)
def get_study_csv(id: str, context: ContextDep) -> Response:
    """Every measure of every score, dataset by dataset and averaged, one per row."""
    return _file(context, id, "correlations.csv", f"{id}.csv")


@router.get("/{id}/files/{name}", response_class=FileResponse, responses=responses(404) | ANY)
def get_study_file(id: str, name: str, context: ContextDep) -> Response:
    """A table, or the report as HTML or Markdown."""
    return _file(context, id, name, name)


@router.get("/{id}/plots/{name}", response_class=FileResponse, responses=responses(404) | PNG)
def get_study_plot(id: str, name: str, context: ContextDep) -> Response:
    """A plot of the report: scores against mAP, metrics by dataset."""
    return _file(context, id, name, name)


def _file(context: Context, id: str, name: str, filename: str) -> Response:
    with context.database.reading() as session:
        row = studies.find(session, context.workspace_id, id)
    found = study_views.file_named(row, name)
    if found is None:
        known = ", ".join(file["file_name"] for file in row.files or []) or "none yet"
        raise NotFound(f"the study {id}, which is {row.state}, has no file {name!r}; it has {known}")
    inline = found["media_type"] in ("text/html", "image/png")
    return download(context.store, found["sha256"], found["media_type"], filename, inline=inline)


@router.get("/{id}/events", response_class=EventSourceResponse, responses=responses(404))
async def get_study_events(
    reader: Annotated[Reader, Depends(study_reader)],
) -> AsyncIterable[ServerSentEvent]:
    """What happens to a study, its rankings and its verifications, as server-sent events."""
    async for event in reader.events():
        yield event


@router.get("/{id}", response_model=StudyView, responses=responses(404))
async def get_study(
    id: str,
    context: ContextDep,
    asked: Annotated[WaitQuery, Query()],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One study: how far it is, and what it says of each metric."""
    if asked.wait > 0:
        await until_news(context, Study, id, if_none_match, asked.wait)
    return await run_in_threadpool(_read, context, id, if_none_match)


def _read(context: Context, id: str, if_none_match: str | None) -> Response:
    with context.database.reading() as session:
        row = studies.find(session, context.workspace_id, id)
        return cached(if_none_match, row.version, lambda: study_views.view(session, row))


@router.post("/{id}:cancel", status_code=202, response_model=StudyView, responses=responses(404))
def cancel_study(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
    """Stop a study. One that has ended stays as it is, and answers 200."""

    def act(session: Session) -> Answer:
        return _answer(session, studies.cancel(session, context.workspace_id, id))

    return answer_once(request, context, key, None, act)


@router.post("/{id}:retry", status_code=202, response_model=StudyView, responses=responses(404, 409))
def retry_study(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
    """Try again what failed or was cancelled in a study, and write its report anew; what succeeded is kept."""

    def act(session: Session) -> Answer:
        return _answer(session, studies.retry(session, context.workspace_id, id))

    return answer_once(request, context, key, None, act)


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def delete_study(id: str, context: ContextDep, if_match: IfMatch = None) -> None:
    """Delete a study that has ended, with its rankings and verifications; fine-tuned checkpoints stay."""
    with context.database.unit_of_work() as session:
        require_unchanged(if_match, studies.find(session, context.workspace_id, id).version)
        studies.remove(session, context.workspace_id, id)


def _answer(session: Session, row: Study) -> Answer:
    session.flush()
    body = study_views.view(session, row).model_dump(mode="json")
    return Answer(200 if row.state in ENDED else 202, body, f"/v1/studies/{row.id}")
