"""/v1/searches"""

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from app.api.caching import cached, require_unchanged
from app.api.deps import Context, ContextDep, IdempotencyKey, IfMatch, IfNoneMatch
from app.api.events import Reader, search_reader
from app.api.files import CSV, PNG, download
from app.api.once import accepted, answer_once
from app.api.paging import paged
from app.api.problems import responses
from app.api.waiting import until_news
from app.db.tables import Search
from app.errors import Conflict, NotFound
from app.queue.states import ENDED
from app.schemas.common import Page, WaitQuery
from app.schemas.searches import SearchCreate, SearchQuery, SearchSummary, SearchView
from app.services import search_views, searches
from app.services.idempotency import Answer

router = APIRouter(prefix="/v1/searches", tags=["searches"])


@router.post("", status_code=202, response_model=SearchView, responses=responses(400, 409, 413))
def create_search(
    request: Request, context: ContextDep, body: SearchCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Find the best checkpoint that a budget can find: scores give the order, and ever fewer are fine-tuned ever longer."""

    def act(session: Session) -> Answer:
        made = searches.create(session, context.workspace_id, body, context.settings)
        return accepted(search_views.view(session, made), f"/v1/searches/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json", exclude_unset=True), act)


@router.get("", response_model=Page[SearchSummary])
def list_searches(
    request: Request, response: Response, context: ContextDep, asked: Annotated[SearchQuery, Query()]
) -> Page:
    """Searches, newest first."""
    with context.database.reading() as session:
        found, cursor = searches.listed(session, context.workspace_id, asked)
        return paged(request, response, [search_views.summary(session, row) for row in found], cursor)


@router.get("/{id}.csv", response_class=Response, responses=responses(404) | CSV)
def get_search_csv(id: str, context: ContextDep) -> Response:
    """What was spent where, as a table: a row for each part of each round."""
    with context.database.reading() as session:
        row = searches.find(session, context.workspace_id, id)
        text = search_views.as_csv(search_views.view(session, row))
    headers = {"Content-Disposition": f'attachment; filename="{id}.csv"'}
    return Response(text, media_type="text/csv", headers=headers)


@router.get("/{id}/plot.png", response_class=FileResponse, responses=responses(404, 409) | PNG)
def get_search_plot(id: str, context: ContextDep) -> Response:
    """Validation mAP of every candidate against its iterations, round by round."""
    with context.database.reading() as session:
        row = searches.find(session, context.workspace_id, id)
    if row.state not in ENDED:
        raise Conflict(f"the search is {row.state}; there is a plot once it has succeeded")
    if row.plot_sha256 is None:
        raise NotFound(f"the search {id} {row.state} without a plot")
    return download(context.store, row.plot_sha256, "image/png", f"{id}.png", inline=True)


@router.get("/{id}/events", response_class=EventSourceResponse, responses=responses(404))
async def get_search_events(
    reader: Annotated[Reader, Depends(search_reader)],
) -> AsyncIterable[ServerSentEvent]:
    """What happens to a search, its ranking and its verifications, as server-sent events."""
    async for event in reader.events():
        yield event


@router.get("/{id}", response_model=SearchView, responses=responses(404))
async def get_search(
    id: str,
    context: ContextDep,
    asked: Annotated[WaitQuery, Query()],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One search: the best it has found, what was spent where, and how sure that is."""
    if asked.wait > 0:
        await until_news(context, Search, id, if_none_match, asked.wait)
    return await run_in_threadpool(_read, context, id, if_none_match)


def _read(context: Context, id: str, if_none_match: str | None) -> Response:
    with context.database.reading() as session:
        row = searches.find(session, context.workspace_id, id)
        return cached(if_none_match, row.version, lambda: search_views.view(session, row))


@router.post("/{id}:cancel", status_code=202, response_model=SearchView, responses=responses(404))
def cancel_search(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
    """Stop a search. One that has ended stays as it is, and answers 200."""

    def act(session: Session) -> Answer:
        return _answer(session, searches.cancel(session, context.workspace_id, id))

    return answer_once(request, context, key, None, act)


@router.post("/{id}:retry", status_code=202, response_model=SearchView, responses=responses(404, 409))
def retry_search(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
    """Go on with a search that failed or was cancelled, from where its trainings stand."""

    def act(session: Session) -> Answer:
        return _answer(session, searches.retry(session, context.workspace_id, id, context.settings))

    return answer_once(request, context, key, None, act)


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def delete_search(id: str, context: ContextDep, if_match: IfMatch = None) -> None:
    """Delete a search that has ended, with its ranking and verifications; fine-tuned checkpoints stay."""
    with context.database.unit_of_work() as session:
        require_unchanged(if_match, searches.find(session, context.workspace_id, id).version)
        searches.remove(session, context.workspace_id, id)


def _answer(session: Session, row: Search) -> Answer:
    session.flush()
    body = search_views.view(session, row).model_dump(mode="json")
    return Answer(200 if row.state in ENDED else 202, body, f"/v1/searches/{row.id}")
