"""/healthz, /readyz and /metrics: for whoever keeps the service running"""

import shutil
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text

from app import telemetry
from app.api.deps import Parts

router = APIRouter(tags=["operation"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers. Touches nothing else."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "A part that is needed does not work"}})
def readyz(request: Request) -> JSONResponse:
    """Database, disk and broker. A broker that is away only delays work, so it is `degraded` and still 200."""
    parts: Parts = request.app.state.parts
    checks: dict[str, Any] = {"database": _database(parts), "disk": _disk(parts)}
    broken = any(check != "ok" for check in checks.values())
    checks["broker"] = parts.relay.last_error or "ok"
    status = "unavailable" if broken else "ok" if checks["broker"] == "ok" else "degraded"
    return JSONResponse({"status": status, "checks": checks}, 503 if broken else 200)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """For Prometheus."""
    parts: Parts = request.app.state.parts
    return Response(telemetry.exposition(parts.database), media_type=telemetry.MEDIA_TYPE)


def _database(parts: Parts) -> str:
    try:
        with parts.database.reading() as session:
            session.execute(text("SELECT 1 FROM workspace LIMIT 1"))
    except Exception as failure:
        return f"does not answer: {type(failure).__name__}"
    return "ok"


def _disk(parts: Parts) -> str:
    free = shutil.disk_usage(parts.settings.home).free
    if free < parts.settings.min_free_disk_bytes:
        return f"{free:,} bytes free, fewer than the {parts.settings.min_free_disk_bytes:,} that must be"
    return "ok"
