"""The service: settings, middleware, routers, and what runs beside the requests. `uvicorn app.main:create_app --factory`"""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app import logs
from app.api import (
    catalogue,
    checkpoints,
    datasets,
    health,
    jobs,
    openapi,
    problems,
    rankings,
    searches,
    studies,
    uploads,
    verifications,
)
from app.api.deps import Parts, known_parameters
from app.api.gate import Gate
from app.api.watch import Watch
from app.db.engine import Database
from app.db.migrate import is_current, upgrade
from app.queue.broker import Broker
from app.queue.relay import Relay
from app.services import workspaces
from app.settings import Settings
from app.storage.blobs import open_store

_EXPOSED = [
    "Location",
    "ETag",
    "Link",
    "Retry-After",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Expires",
    "Tus-Resumable",
]


class OutdatedSchema(RuntimeError):
    """The database waits for `detrank migrate`."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for `settings`, by default those of the environment."""
    settings = settings or Settings()
    logs.configure(settings.log_level)
    middleware = [Middleware(Gate, settings=settings)]
    if settings.cors_origins:
        cors = {"allow_methods": ["*"], "allow_headers": ["*"], "expose_headers": _EXPOSED}
        middleware.append(Middleware(CORSMiddleware, allow_origins=settings.cors_origins, **cors))
    app = FastAPI(
        title="detrank",
        summary="Which pretrained detector should I fine-tune on this dataset?",
        version=_version(),
        middleware=middleware,
        lifespan=lambda app: _running(app, settings),
        generate_unique_id_function=openapi.operation_id,
        dependencies=[Depends(known_parameters)],
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.openapi = lambda: openapi.document(app)
    problems.install(app)
    common = problems.responses(401, 403, 422, 500, 503)
    for router in (
        datasets.router,
        uploads.router,
        checkpoints.router,
        rankings.router,
        verifications.router,
        verifications.subsets_router,
        searches.router,
        studies.router,
        jobs.router,
        jobs.workers_router,
        catalogue.router,
    ):
        app.include_router(router, responses=common)
    app.include_router(health.router)
    return app


@contextlib.asynccontextmanager
async def _running(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    parts = await run_in_threadpool(_opened, settings)
    app.state.parts = parts
    app.openapi()  # takes a moment; no request should wait for it
    parts.relay.start()
    try:
        yield
    finally:
        await parts.watch.close()
        await run_in_threadpool(parts.relay.stop)
        parts.database.dispose()


def _opened(settings: Settings) -> Parts:
    """Everything the service runs on. Raises OutdatedSchema where servers wait to be migrated."""
    for folder in (settings.home, settings.cache_dir, settings.scratch_dir):
        folder.mkdir(parents=True, exist_ok=True)
    url = settings.resolved_database_url
    if settings.embedded:
        upgrade(url)
    elif not is_current(url):
        raise OutdatedSchema(
            "the database does not have the schema of this version: run `detrank migrate`, then start again"
        )
    database = Database(url)
    if settings.auth == "none":
        with database.unit_of_work() as session:
            workspaces.ensure_default(session)
    relay = Relay(database, Broker(settings), relay_s=settings.relay_s, bell_s=settings.bell_s)
    return Parts(settings, database, open_store(settings), Watch(database), relay)


def _version() -> str:
    try:
        return version("detrank")
    except PackageNotFoundError:
        return "0"
