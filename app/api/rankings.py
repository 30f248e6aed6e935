"""/v1/rankings"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from sqlalchemy.orm import Session

from app.api import work
from app.api.deps import ContextDep, IdempotencyKey
from app.api.files import CSV, PNG, download, plot, table
from app.api.once import answer_once
from app.api.problems import responses
from app.db.tables import Ranking
from app.errors import NotFound
from app.schemas.ranking_views import RankingSummary, RankingView
from app.schemas.rankings import CostLimits, RankingCreate, RankingFilters, RankingQuery, RankingViewQuery
from app.schemas.verifications import RankingVerificationsCreate
from app.services import ranking_csv, ranking_requests, ranking_verify, ranking_views, rankings, works
from app.services.idempotency import Answer

router = APIRouter(prefix="/v1/rankings", tags=["rankings"])
ViewQuery = Annotated[RankingViewQuery, Query()]


def _shown(session: Session, ranking: Ranking, asked: RankingViewQuery) -> RankingView:
    limits = asked.model_dump(include=set(CostLimits.model_fields))
    filters = RankingFilters(**limits, licences=asked.licence or None)
    return ranking_views.view(session, ranking, filters, asked.order_by, asked.frontier)


ROUTES = work.Routes(
    listing=rankings.LISTING,
    query=RankingQuery,
    look=RankingViewQuery,
    view=RankingView,
    summary=RankingSummary,
    shown=_shown,
    summarised=ranking_views.summary,
    says=work.Sentences(
        listed="Rankings, newest first, without their candidates.",
        shown="A ranking, best candidate first. The parameters filter this view only.",
        events="What happens to a ranking and its candidates, as server-sent events.",
        retried="Try again what failed or was cancelled in a ranking; what was scored is kept.",
        deleted="Delete a ranking that has ended, with its scores and jobs.",
    ),
)


@router.post("", status_code=202, response_model=RankingView, responses=responses(400, 409, 413))
def create_ranking(
    request: Request, context: ContextDep, body: RankingCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Order candidates for a dataset. One job scores each candidate; the last to end puts them in order."""
    asked = ranking_requests.normalised(body, context.settings)

    def create(session: Session) -> Ranking:
        attempts = context.settings.max_attempts
        return rankings.create(
            session, context.workspace_id, asked, verify=body.verify, max_attempts=attempts
        )

    return work.create_once(request, context, key, body, ROUTES, create)


@router.get("/{id}.csv", response_class=Response, responses=responses(404) | CSV)
def get_ranking_csv(id: str, context: ContextDep, asked: ViewQuery) -> Response:
    """The ranking as a table: a row for each candidate, a column for each score."""
    with context.database.reading() as session:
        ranking = works.find(session, context.workspace_id, Ranking, id)
        text = ranking_csv.as_csv(_shown(session, ranking, asked))
    return table(text, f"{id}.csv")


@router.get("/{id}/plot.png", response_class=FileResponse, responses=responses(404, 409) | PNG)
def get_ranking_plot(id: str, context: ContextDep) -> Response:
    """The scores of the candidates as bars."""
    with context.database.reading() as session:
        ranking = works.find(session, context.workspace_id, Ranking, id)
    return plot(context.store, ranking, ranking.plot_sha256)


@router.get("/{id}/map.png", response_class=FileResponse, responses=responses(404) | PNG)
def get_ranking_map_plot(id: str, context: ContextDep) -> Response:
    """The scores that ordered the candidates against their mAP after fine-tuning."""
    with context.database.reading() as session:
        ranking = works.find(session, context.workspace_id, Ranking, id)
    if ranking.map_plot_sha256 is None:
        raise NotFound(
            f"the ranking {id} is {ranking.state}; there is a plot of mAP once candidates of it were verified"
        )
    return download(context.store, ranking.map_plot_sha256, "image/png", f"{id}-map.png", inline=True)


@router.get("/{id}/cost.png", response_class=FileResponse, responses=responses(404) | PNG)
def get_ranking_cost_plot(id: str, context: ContextDep) -> Response:
    """The predicted mAP of the candidates against milliseconds a picture, as it was when they were put in order; by the
    score where something is not predicted for all of them."""
    with context.database.reading() as session:
        ranking = works.find(session, context.workspace_id, Ranking, id)
    if ranking.cost_plot_sha256 is None:
        raise NotFound(
            f"the ranking {id} is {ranking.state}; there is a plot of cost once two candidates have a place and were timed"
        )
    return download(context.store, ranking.cost_plot_sha256, "image/png", f"{id}-cost.png", inline=True)


@router.post(
    "/{id}/verifications",
    status_code=202,
    response_model=RankingView,
    responses=responses(400, 404, 409, 413),
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
        return work.standing(session, ROUTES, ranking)

    return answer_once(request, context, key, body.model_dump(mode="json", exclude_unset=True), act)


work.add_routes(router, ROUTES)
