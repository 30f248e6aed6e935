"""What endpoints are given: the running parts of the service, who asks, and the headers of a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Header, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.access import SAFE, Caller, announced_bytes, deed_of, is_upload, require, require_for_method
from app.api.kept import KeptAnswers
from app.api.watch import RowWatch
from app.db.access_tables import Scope
from app.db.engine import Database
from app.errors import InvalidRequest, TooManyRequests, Unauthenticated
from app.queue.relay import Relay
from app.services import quotas, workspaces
from app.services.audit import Audited
from app.services.health import Health
from app.services.rates import Rates
from app.settings import Settings
from app.storage.blobs import BlobStore

bearer = HTTPBearer(
    auto_error=False, description="an API key, detrank_...; not needed where DETRANK_AUTH is none"
)

KEY_COOKIE = "detrank_key"


@dataclass(frozen=True)
class Parts:
    """What the service runs on; one per process."""

    settings: Settings
    database: Database
    store: BlobStore
    watch: RowWatch
    relay: Relay
    health: Health
    rates: Rates
    kept: KeptAnswers


@dataclass(frozen=True)
class Context:
    """The parts, and whoever asks: with the workspace, and the scope of the key. `database` writes the audit log."""

    settings: Settings
    database: Database
    store: BlobStore
    watch: RowWatch
    relay: Relay
    health: Health
    rates: Rates
    kept: KeptAnswers
    workspace_id: str
    scope: Scope


Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]


async def caller_of(request: Request, credentials: Credentials) -> Caller:
    """Raises Unauthenticated where a key is needed and there is none, or not a good one."""
    parts: Parts = request.app.state.parts
    if parts.settings.auth == "none":
        return Caller(workspaces.DEFAULT_WORKSPACE, None, Scope.ADMIN)
    key = credentials.credentials if credentials is not None else _key_of_browser(request)
    workspaces.check_form(key)
    caller = await run_in_threadpool(_owner_of, parts.database, key)
    request.scope["key_id"] = caller.key_id  # for the log
    return caller


async def context(request: Request, caller: Annotated[Caller, Depends(caller_of)]) -> Context:
    """Raises Forbidden where the key is too weak for the request, TooManyRequests, and QuotaExceeded for a file too many."""
    parts: Parts = request.app.state.parts
    require_for_method(caller, request)
    if parts.rates.any:
        await _count(request, parts, caller)
    if is_upload(request):
        await run_in_threadpool(_require_room, request, parts, caller)
    given = dict(vars(parts))
    if deed := deed_of(request, caller):
        given["database"] = Audited(parts.database, deed)
    return Context(**given, workspace_id=caller.workspace_id, scope=caller.scope)


async def _count(request: Request, parts: Parts, caller: Caller) -> None:
    whose = {"workspace": caller.workspace_id} | ({"key": caller.key_id} if caller.key_id else {})
    upload = is_upload(request)
    try:
        if parts.rates.in_hand(whose, upload=upload):
            told = parts.rates.count(whose, upload=upload)
        else:
            told = await run_in_threadpool(parts.rates.count, whose, upload=upload)
    except TooManyRequests as refused:
        request.scope["answer_headers"] = refused.headers
        raise
    request.scope["answer_headers"] = told


def _require_room(request: Request, parts: Parts, caller: Caller) -> None:
    with parts.database.reading() as session:
        quotas.require_room(session, caller.workspace_id, parts.settings, announced_bytes(request))


async def admin(
    context: Annotated[Context, Depends(context)], caller: Annotated[Caller, Depends(caller_of)]
) -> Context:
    """Raises Forbidden for whoever does not run the service."""
    require(caller, Scope.ADMIN)
    return context


async def context_of(request: Request) -> Context:
    """For a route that reads its request itself. Raises as `context`."""
    return await context(request, await caller_of(request, await bearer(request)))


def _key_of_browser(request: Request) -> str:
    """The key that the page left in a cookie. Raises Unauthenticated where there is none.

    A browser sends cookies along with requests that other sites make it send; those may change nothing.
    """
    key = request.cookies.get(KEY_COOKIE)
    if key is None:
        raise Unauthenticated("send your API key in the header `Authorization: Bearer detrank_...`")
    if request.method not in SAFE and not from_own_page(request):
        raise Unauthenticated(
            "a key in a cookie counts only for requests of this service's own page; send the header"
        )
    return key


def from_own_page(request: Request) -> bool:
    """Whether a browser says that a page of this very service made the request; no browser lets pages forge that."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")


def _owner_of(database: Database, key: str) -> Caller:
    with database.reading() as session:
        record = workspaces.find_key(session, key)
        stale = workspaces.was_not_seen_lately(record)
    if stale:
        with database.unit_of_work() as session:
            workspaces.note_use(session, record.id)
    return Caller(record.workspace_id, record.id, Scope(record.scope))


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
AdminDep = Annotated[Context, Depends(admin)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key and request again get the same answer and change nothing; kept for 24 "
        "hours",
    ),
]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=2000)]
IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=2000)]
