"""/v1/rankings"""

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from app.api.caching import cached, require_unchanged
from app.api.deps import Context, ContextDep, IdempotencyKey, IfMatch, IfNoneMatch
from app.api.events import Reader, ranking_reader
from app.api.files import CSV, PNG, download
from app.api.once import accepted, answer_once
from app.api.paging import paged
from app.api.problems import responses
from app.api.waiting import until_news
from app.db.tables import Ranking
from app.errors import Conflict, NotFound
from app.queue.states import ENDED
from app.schemas.common import Page
from app.schemas.rankings import (
    RankingCreate,
    RankingFilters,
    RankingQuery,
    RankingSummary,
    RankingView,
    RankingViewQuery,
)
from app.schemas.verifications import RankingVerificationsCreate
from app.services import ranking_csv, ranking_verify, ranking_views, rankings
from app.services.idempotency import Answer

router = APIRouter(prefix="/v1/rankings", tags=["rankings"])
ViewQuery = Annotated[RankingViewQuery, Query()]


@router.post("", status_code=202, response_model=RankingView, responses=responses(400, 409, 413))
def create_ranking(
    request: Request, context: ContextDep, body: RankingCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Order candidates for a dataset. One job scores each candidate; the last to end puts them in order."""
    asked = rankings.normalised(body, context.settings)

    def act(session: Session) -> Answer:
        made = rankings.create(
            session, context.workspace_id, asked, verify=body.verify, max_attempts=context.settings.max_attempts
        )
        return accepted(ranking_views.view(session, made, RankingFilters()), f"/v1/rankings/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json", exclude_unset=True), act)


@router.get("", response_model=Page[RankingSummary])
def list_rankings(
    request: Request, response: Response, context: ContextDep, asked: Annotated[RankingQuery, Query()]
) -> Page:
    """Rankings, newest first, without their candidates."""
    with context.database.reading() as session:
        found, cursor = rankings.listed(session, context.workspace_id, asked)
        return paged(request, response, [ranking_views.summary(ranking) for ranking in found], cursor)


@router.get("/{id}.csv", response_class=Response, responses=responses(404) | CSV)
def get_ranking_csv(id: str, context: ContextDep, asked: ViewQuery) -> Response:
    """The ranking as a table: a row for each candidate, a column for each score."""
    with context.database.reading() as session:
        ranking = rankings.find(session, context.workspace_id, id)
        text = ranking_csv.as_csv(ranking_views.view(session, ranking, _filters(asked)))
    headers = {"Content-Disposition": f'attachment; filename="{id}.csv"'}
    return Response(text, media_type="text/csv", headers=headers)


@router.get("/{id}/plot.png", response_class=FileResponse, responses=responses(404, 409) | PNG)
def get_ranking_plot(id: str, context: ContextDep) -> Response:
    """The scores of the candidates as bars."""
    with context.database.reading() as session:
        ranking = rankings.find(session, context.workspace_id, id)
    if ranking.state not in ENDED:
        raise Conflict(f"the ranking is {ranking.state}; there is a plot once it has succeeded")
    if ranking.plot_sha256 is None:
        raise NotFound(f"the ranking {id} {ranking.state} without a plot")
    return download(context.store, ranking.plot_sha256, "image/png", f"{id}.png", inline=True)


@router.get("/{id}/map.png", response_class=FileResponse, responses=responses(404) | PNG)
def get_ranking_map_plot(id: str, context: ContextDep) -> Response:
    """The scores that ordered the candidates against their mAP after fine-tuning."""
    with context.database.reading() as session:
        ranking = rankings.find(session, context.workspace_id, id)
    if ranking.map_plot_sha256 is None:
        raise NotFound(f"the ranking {id} is {ranking.state}; there is a plot of mAP once candidates of it were verified")
    return download(context.store, ranking.map_plot_sha256, "image/png", f"{id}-map.png", inline=True)


@router.get("/{id}/events", response_class=EventSourceResponse, responses=responses(404))
async def get_ranking_events(
    reader: Annotated[Reader, Depends(ranking_reader)],
) -> AsyncIterable[ServerSentEvent]:
    """What happens to a ranking and its candidates, as server-sent events."""
    async for event in reader.events():
        yield event


@router.get("/{id}", response_model=RankingView, responses=responses(404))
async def get_ranking(
    id: str, context: ContextDep, asked: ViewQuery, if_none_match: IfNoneMatch = None
) -> Response:
    """A ranking, best candidate first. The parameters filter this view only."""
    if asked.wait > 0:
        await until_news(context, Ranking, id, if_none_match, asked.wait)
    return await run_in_threadpool(_read, context, id, asked, if_none_match)


def _read(context: Context, id: str, asked: RankingViewQuery, if_none_match: str | None) -> Response:
    with context.database.reading() as session:
        ranking = rankings.find(session, context.workspace_id, id)
        return cached(
            if_none_match, ranking.version, lambda: ranking_views.view(session, ranking, _filters(asked))
        )


@router.post("/{id}:cancel", status_code=202, response_model=RankingView, responses=responses(404))
def cancel_ranking(
    id: str, request: Request, context: ContextDep, key: IdempotencyKey = None
) -> JSONResponse:
    """Stop a ranking. One that has ended stays as it is, and answers 200."""

    def act(session: Session) -> Answer:
        ranking = rankings.cancel(session, context.workspace_id, id)
        return _answer(session, ranking)

    return answer_once(request, context, key, None, act)


@router.post("/{id}:retry", status_code=202, response_model=RankingView, responses=responses(404, 409))
def retry_ranking(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
    """Try again what failed or was cancelled in a ranking; what was scored is kept."""

    def act(session: Session) -> Answer:
        ranking = rankings.retry(session, context.workspace_id, id)
        return _answer(session, ranking)

    return answer_once(request, context, key, None, act)


@router.post(
    "/{id}/verifications", status_code=202, response_model=RankingView, responses=responses(400, 404, 409, 413)
)
def verify_ranking(
    id: str,
    request: Request,
    context: ContextDep,
    body: RankingVerificationsCreate,
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Fine-tune candidates of a ranking that has ended, and compare their mAP with the scores."""

    def act(session: Session) -> Answer:
        ranking = ranking_verify.add(session, context.workspace_id, id, body, context.settings)
        return _answer(session, ranking)

    return answer_once(request, context, key, body.model_dump(mode="json", exclude_unset=True), act)


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def delete_ranking(id: str, context: ContextDep, if_match: IfMatch = None) -> None:
    """Delete a ranking that has ended, with its scores and jobs."""
    with context.database.unit_of_work() as session:
        require_unchanged(if_match, rankings.find(session, context.workspace_id, id).version)
        rankings.remove(session, context.workspace_id, id)


def _answer(session: Session, ranking: Ranking) -> Answer:
    session.flush()
    body = ranking_views.view(session, ranking, RankingFilters()).model_dump(mode="json")
    return Answer(200 if ranking.state in ENDED else 202, body, f"/v1/rankings/{ranking.id}")


def _filters(asked: RankingViewQuery) -> RankingFilters:
    return RankingFilters(**asked.model_dump(exclude={"wait", "licence"}), licences=asked.licence or None)
