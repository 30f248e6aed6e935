"""/v1/studies"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from app.api import work
from app.api.deps import Context, ContextDep, IdempotencyKey
from app.api.files import ANY, CSV, HTML, PNG, download
from app.api.problems import responses
from app.db.tables import Study
from app.errors import NotFound
from app.schemas.studies import StudyCreate, StudyQuery, StudySummary, StudyView
from app.services import studies, study_views, works

router = APIRouter(prefix="/v1/studies", tags=["studies"])

ROUTES = work.Routes(
    listing=studies.LISTING,
    query=StudyQuery,
    view=StudyView,
    summary=StudySummary,
    shown=lambda session, row, _: study_views.view(session, row),
    summarised=study_views.summary,
    says=work.Sentences(
        listed="Studies, newest first.",
        shown="One study: how far it is, and what it says of each metric.",
        events="What happens to a study, its rankings and its verifications, as server-sent events.",
        retried="Try again what failed or was cancelled in a study, and write its report anew; "
        "what succeeded is kept.",
        deleted="Delete a study that has ended, with its rankings and verifications; "
        "fine-tuned checkpoints stay.",
    ),
)


@router.post("", status_code=202, response_model=StudyView, responses=responses(400, 409, 413))
def create_study(
    request: Request, context: ContextDep, body: StudyCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Score and fine-tune every candidate on every dataset, and measure which metric deserved trust."""
    return work.create_once(
        request,
        context,
        key,
        body,
        ROUTES,
        lambda session: studies.create(session, context.workspace_id, body, context.settings),
    )


@router.get("/{id}.html", response_class=FileResponse, responses=responses(404) | HTML)
def get_study_report(id: str, context: ContextDep) -> Response:
    """The report as one page that needs nothing else."""
    answer = _file(context, id, study_views.REPORT, f"{id}.html")
    # its pictures and style are in it; it runs nothing
    answer.headers["Content-Security-Policy"] = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
    )
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
        row = works.find(session, context.workspace_id, Study, id)
    found = study_views.file_named(row, name)
    if found is None:
        known = ", ".join(file["file_name"] for file in row.files or []) or "none yet"
        raise NotFound(f"the study {id}, which is {row.state}, has no file {name!r}; it has {known}")
    inline = found["media_type"] in ("text/html", "image/png")
    return download(context.store, found["sha256"], found["media_type"], filename, inline=inline)


work.add_routes(router, ROUTES)
