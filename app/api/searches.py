"""/v1/searches"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from app.api import work
from app.api.deps import ContextDep, IdempotencyKey
from app.api.files import CSV, PNG, plot, table
from app.api.problems import responses
from app.db.tables import Search
from app.schemas.searches import SearchCreate, SearchQuery, SearchSummary, SearchView
from app.services import search_views, searches, works

router = APIRouter(prefix="/v1/searches", tags=["searches"])

ROUTES = work.Routes(
    listing=searches.LISTING,
    query=SearchQuery,
    view=SearchView,
    summary=SearchSummary,
    shown=lambda session, row, _: search_views.view(session, row),
    summarised=search_views.summary,
    says=work.Sentences(
        listed="Searches, newest first.",
        shown="One search: the best it has found, what was spent where, and how sure that is.",
        events="What happens to a search, its ranking and its verifications, as server-sent events.",
        retried="Go on with a search that failed or was cancelled, from where its trainings stand.",
        deleted="Delete a search that has ended, with its ranking and verifications; fine-tuned checkpoints "
        "stay.",
    ),
)


@router.post("", status_code=202, response_model=SearchView, responses=responses(400, 409, 413))
def create_search(
    request: Request, context: ContextDep, body: SearchCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Find the best checkpoint that a budget can find.

    Scores give the order, and ever fewer are fine-tuned ever longer.
    """
    return work.create_once(
        request,
        context,
        key,
        body,
        ROUTES,
        lambda session: searches.create(session, context.workspace_id, body, context.settings),
    )


@router.get("/{id}.csv", response_class=Response, responses=responses(404) | CSV)
def get_search_csv(id: str, context: ContextDep) -> Response:
    """What was spent where, as a table: a row for each part of each round."""
    with context.database.reading() as session:
        row = works.find(session, context.workspace_id, Search, id)
        text = search_views.as_csv(search_views.view(session, row))
    return table(text, f"{id}.csv")


@router.get("/{id}/plot.png", response_class=FileResponse, responses=responses(404, 409) | PNG)
def get_search_plot(id: str, context: ContextDep) -> Response:
    """Validation mAP of every candidate against its iterations, round by round."""
    with context.database.reading() as session:
        row = works.find(session, context.workspace_id, Search, id)
    return plot(context.store, row, row.plot_sha256)


work.add_routes(router, ROUTES)
