"""/v1/jobs and /v1/workers"""

from fastapi import APIRouter
from pydantic import BaseModel

from app.api import work
from app.api.deps import ContextDep
from app.db.access_tables import Scope
from app.schemas.jobs import JobQuery, JobView, WorkerView
from app.services import jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
workers_router = APIRouter(prefix="/v1/workers", tags=["jobs"])

ROUTES = work.Routes(
    listing=jobs.LISTING,
    query=JobQuery,
    view=JobView,
    summary=JobView,
    shown=lambda _session, job, _asked: jobs.view(job),
    summarised=lambda _session, job: jobs.view(job),
    says=work.Sentences(
        listed="Jobs, newest first.",
        shown="One job, with its progress.",
        events="What happens to a job, as server-sent events.",
        retried="Queue a failed or cancelled job again.",
    ),
)


class Workers(BaseModel):
    items: list[WorkerView]


work.add_routes(router, ROUTES)


@workers_router.get("", response_model=Workers)
def list_workers(context: ContextDep) -> Workers:
    """Worker processes that were heard of, the latest first, with your workspace's jobs; an admin is shown those of all."""
    of = None if context.scope is Scope.ADMIN else context.workspace_id
    with context.database.reading() as session:
        return Workers(items=jobs.workers(session, context.settings.lease_s, of))
