"""The service: settings, middleware, routers, and what runs beside the requests.

`uvicorn app.main:create_app --factory`
"""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app import logs, tracing
from app.api import (
    catalogue,
    checkpoints,
    datasets,
    explanations,
    health,
    jobs,
    keys,
    openapi,
    pretrainings,
    problems,
    pseudo_labellings,
    rankings,
    searches,
    studies,
    uploads,
    verifications,
    webhooks,
    workspaces,
)
from app.api.deps import Parts, known_parameters
from app.api.gate import Gate
from app.api.kept import KeptAnswers
from app.api.watch import RowWatch
from app.db.engine import Database
from app.db.migrate import is_current, upgrade
from app.page import install as page
from app.queue.broker import Broker
from app.queue.relay import Relay
from app.queue.sender import Sender
from app.services.health import Health
from app.services.rates import Rates
from app.services.workspaces import ensure_default
from app.settings import Settings, get_settings
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
    "RateLimit",
    "RateLimit-Policy",
]


class OutdatedSchema(RuntimeError):
    """The database waits for `detrank migrate`."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for `settings`, by default those of the environment."""
    settings = settings or get_settings()
    logs.configure(settings.log_level)
    tracing.configure(settings, "detrank-api")
    middleware = [Middleware(Gate, settings=settings)]
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=_EXPOSED,
            )
        )
    app = FastAPI(
        title="detrank",
        summary="Which pretrained detector should I fine-tune on this dataset?",
        version=_version(),
        middleware=middleware,
        lifespan=lambda app: _running(app, settings),
        generate_unique_id_function=openapi.operation_id,
        dependencies=[Depends(known_parameters)],
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
    )
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # as FastAPI's manual has it
    problems.install(app)
    common = problems.responses(401, 403, 422, 429, 500, 503)
    for router in (
        datasets.router,
        uploads.router,
        checkpoints.router,
        rankings.router,
        verifications.router,
        verifications.subsets_router,
        searches.router,
        studies.router,
        pretrainings.router,
        pretrainings.recipes_router,
        pseudo_labellings.router,
        jobs.router,
        jobs.workers_router,
        catalogue.router,
        webhooks.router,
        workspaces.router,
        keys.router,
        keys.audit_router,
        explanations.router,
    ):
        app.include_router(router, responses=common)
    app.include_router(health.router)
    page.install(app)
    return app


@contextlib.asynccontextmanager
async def _running(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    parts = await run_in_threadpool(_opened, settings)
    app.state.parts = parts
    app.openapi()  # takes a moment; no request should wait for it
    parts.relay.start()
    sender = Sender(
        parts.database, allow_private=settings.webhooks_to_private, give_up_s=settings.webhook_give_up_s
    )
    sender.start()
    try:
        yield
    finally:
        await parts.watch.close()
        await run_in_threadpool(sender.stop)
        await run_in_threadpool(parts.relay.stop)
        parts.health.close()
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
            ensure_default(session)
    relay = Relay(database, Broker(settings), relay_s=settings.relay_s, bell_s=settings.bell_s)
    store = open_store(settings)
    health = Health(settings, database, store)
    kept = KeptAnswers(settings.kept_answers_bytes)
    rates = Rates(database, settings)
    return Parts(settings, database, store, RowWatch(database), relay, health, rates, kept)


def _version() -> str:
    try:
        return version("detrank")
    except PackageNotFoundError:
        return "0"
