"""/v1/jobs and /v1/workers"""

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.api.caching import cached
from app.api.deps import ContextDep, IdempotencyKey, IfNoneMatch
from app.api.events import Reader, job_reader
from app.api.once import answer_once
from app.api.paging import paged
from app.api.problems import responses
from app.db.tables import Job
from app.queue.states import ENDED
from app.schemas.common import Page
from app.schemas.jobs import JobQuery, JobView, WorkerView
from app.services import jobs
from app.services.idempotency import Answer

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
workers_router = APIRouter(prefix="/v1/workers", tags=["jobs"])


class Workers(BaseModel):
    items: list[WorkerView]


@router.get("", response_model=Page[JobView])
def list_jobs(
    request: Request, response: Response, context: ContextDep, asked: Annotated[JobQuery, Query()]
) -> Page:
    """Jobs, newest first."""
    with context.database.reading() as session:
        found, cursor = jobs.listed(session, context.workspace_id, asked)
        return paged(request, response, [jobs.view(job) for job in found], cursor)


@router.get("/{id}", response_model=JobView, responses=responses(404))
def get_job(id: str, context: ContextDep, if_none_match: IfNoneMatch = None) -> Response:
    """One job, with its progress."""
    with context.database.reading() as session:
        job = jobs.find(session, context.workspace_id, id)
        return cached(if_none_match, job.version, lambda: jobs.view(job))


@router.get("/{id}/events", response_class=EventSourceResponse, responses=responses(404))
async def get_job_events(reader: Annotated[Reader, Depends(job_reader)]) -> AsyncIterable[ServerSentEvent]:
    """What happens to a job, as server-sent events."""
    async for event in reader.events():
        yield event


@router.post("/{id}:cancel", status_code=202, response_model=JobView, responses=responses(404))
def cancel_job(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
    """Stop a job. One that has ended stays as it is, and answers 200."""

    def act(session: Session) -> Answer:
        return _answer(session, jobs.cancel(session, context.workspace_id, id))

    return answer_once(request, context, key, None, act)


@router.post("/{id}:retry", status_code=202, response_model=JobView, responses=responses(404, 409))
def retry_job(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
    """Queue a failed or cancelled job again."""

    def act(session: Session) -> Answer:
        return _answer(session, jobs.retry(session, context.workspace_id, id))

    return answer_once(request, context, key, None, act)


@workers_router.get("", response_model=Workers)
def list_workers(context: ContextDep) -> Workers:
    """Worker processes that were heard of, the latest first."""
    with context.database.reading() as session:
        return Workers(items=jobs.workers(session, context.settings.lease_s))


def _answer(session: Session, job: Job) -> Answer:
    session.flush()
    return Answer(
        200 if job.state in ENDED else 202, jobs.view(job).model_dump(mode="json"), f"/v1/jobs/{job.id}"
    )
