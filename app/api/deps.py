"""What endpoints are given: the running parts of the service, who asks, and the headers of a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.watch import Watch
from app.db.engine import Database
from app.errors import InvalidRequest, Unauthenticated
from app.queue.relay import Relay
from app.services import workspaces
from app.settings import Settings
from app.storage.blobs import BlobStore

bearer = HTTPBearer(
    auto_error=False, description="an API key, detrank_...; not needed where DETRANK_AUTH is none"
)


@dataclass(frozen=True)
class Parts:
    """What the service runs on; one per process."""

    settings: Settings
    database: Database
    store: BlobStore
    watch: Watch
    relay: Relay


@dataclass(frozen=True)
class Context:
    """The parts, and the workspace of whoever asks."""

    settings: Settings
    database: Database
    store: BlobStore
    watch: Watch
    relay: Relay
    workspace_id: str


async def context(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Context:
    """Raises Unauthenticated where a key is needed and there is none, or not a good one."""
    parts: Parts = request.app.state.parts
    workspace_id = workspaces.DEFAULT_WORKSPACE
    if parts.settings.auth == "keys":
        if credentials is None:
            raise Unauthenticated("send your API key in the header `Authorization: Bearer detrank_...`")
        workspaces.check_form(credentials.credentials)
        workspace_id = await run_in_threadpool(_workspace_of, parts.database, credentials.credentials)
    return Context(**vars(parts), workspace_id=workspace_id)


def _workspace_of(database: Database, key: str) -> str:
    with database.reading() as session:
        record = workspaces.find_key(session, key)
        stale = workspaces.was_not_seen_lately(record)
    if stale:
        with database.unit_of_work() as session:
            workspaces.note_use(session, record.id)
    return record.workspace_id


async def known_parameters(request: Request) -> None:
    """Refuses query parameters that OpenAPI does not list: a misspelt one would silently do nothing."""
    route = request.scope.get("route")
    listed: Mapping[tuple[str, str], frozenset[str]] = query_parameters(request)
    allowed = listed.get((getattr(route, "path_format", ""), request.method.lower()))
    if allowed is None:
        return
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in allowed]
    if unknown:
        can = f"known here: {', '.join(sorted(allowed))}" if allowed else "it takes none"
        raise InvalidRequest(
            f"unknown query parameter {', '.join(unknown[:5])}; {can}",
            errors=[
                {"pointer": f"/{name}", "in": "query", "message": f"is not known; {can}"}
                for name in unknown[:20]
            ],
        )


def query_parameters(request: Request) -> Mapping[tuple[str, str], frozenset[str]]:
    state = request.app.state
    if not hasattr(state, "query_parameters"):
        state.query_parameters = {
            (path, method): frozenset(
                p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"
            )
            for path, operations in request.app.openapi()["paths"].items()
            for method, operation in operations.items()
        }
    return state.query_parameters


ContextDep = Annotated[Context, Depends(context)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key and request again get the same answer and change nothing; kept for 24 hours",
    ),
]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=2000)]
IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=2000)]
