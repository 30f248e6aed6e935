"""/healthz, /readyz and /metrics: for whoever keeps the service running"""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from app import telemetry
from app.api.access import require
from app.api.deps import Credentials, Parts, caller_of
from app.api.problems import responses
from app.db.access_tables import Scope
from app.errors import NotFound

router = APIRouter(tags=["operation"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers. Touches nothing else."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "A part that is needed does not work"}})
def readyz(request: Request) -> JSONResponse:
    """Database, schema, disk, storage, broker and workers, each by a look that is not older than ten seconds.

    A broker that is away, or no worker, only delays work: `degraded`, and still 200.
    """
    parts: Parts = request.app.state.parts
    looks = parts.health.looks()
    return JSONResponse(
        {"status": looks.status, "checks": looks.checks}, 503 if looks.status == "unavailable" else 200
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses=responses(401, 403, 404, 503) | {200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request, credentials: Credentials) -> Response:
    """For Prometheus. DETRANK_METRICS says for whom."""
    parts: Parts = request.app.state.parts
    if parts.settings.metrics == "off":
        raise NotFound("metrics are not shown here (DETRANK_METRICS)")
    if parts.settings.metrics == "key":
        require(await caller_of(request, credentials), Scope.METRICS)
    shown = await run_in_threadpool(telemetry.exposition, parts.database)
    return Response(shown, media_type=telemetry.MEDIA_TYPE)
