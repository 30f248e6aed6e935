"""/v1/keys and /v1/audit: for whoever runs the service"""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.deps import AdminDep, Context, IdempotencyKey
from app.api.once import answer_once
from app.api.paging import paged
from app.api.problems import responses
from app.db.access_tables import Scope
from app.schemas.common import Page
from app.schemas.keys import AuditEntryView, AuditQuery, KeyCreate, KeyQuery, KeyRotate, KeyView, NewKey
from app.services import audit, workspaces
from app.services.idempotency import Answer
from app.services.listing import Listing, listed

router = APIRouter(prefix="/v1/keys", tags=["access"])
audit_router = APIRouter(prefix="/v1/audit", tags=["access"])

LISTING = Listing(workspaces.ApiKey)


@router.post("", status_code=201, response_model=NewKey, responses=responses(400, 409, 413))
def create_key(
    request: Request, context: AdminDep, body: KeyCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Make a key. It is shown this once and never again."""
    expires_at = None
    if body.expires_in_days is not None:
        expires_at = datetime.now(UTC) + timedelta(days=body.expires_in_days)

    def make(session: Session) -> tuple[workspaces.ApiKey, str]:
        workspace = workspaces.ensure(session, body.workspace)
        return workspaces.create_key(
            session, workspace.id, body.name, scope=Scope(body.scope), expires_at=expires_at
        )

    return _once(request, context, key, body, make)


@router.get("", response_model=Page[KeyView])
def list_keys(
    request: Request, response: Response, context: AdminDep, asked: Annotated[KeyQuery, Query()]
) -> Page:
    """Keys of every workspace, newest first; revoked and expired ones too."""
    with context.database.reading() as session:
        found, cursor = listed(session, None, LISTING, asked)
        return paged(request, response, [KeyView.model_validate(one) for one in found], cursor)


@router.get("/{id}", response_model=KeyView, responses=responses(404))
def get_key(id: str, context: AdminDep) -> KeyView:
    """One key."""
    with context.database.reading() as session:
        return KeyView.model_validate(workspaces.get_key(session, id))


@router.delete("/{id}", status_code=204, response_class=Response, responses=responses(404, 409))
def revoke_key(id: str, context: AdminDep) -> None:
    """Close a key at once. Its record stays."""
    with context.database.unit_of_work() as session:
        workspaces.revoke_key(session, id)


@router.post("/{id}:rotate", status_code=201, response_model=NewKey, responses=responses(400, 404, 409, 413))
def rotate_key(
    id: str, request: Request, context: AdminDep, body: KeyRotate, key: IdempotencyKey = None
) -> JSONResponse:
    """Make a key in place of one, which goes on opening for a while."""
    grace = timedelta(hours=body.grace_hours)
    return _once(request, context, key, body, lambda session: workspaces.rotate_key(session, id, grace))


def _once(
    request: Request, context: Context, key: str | None, body: KeyCreate | KeyRotate, make
) -> JSONResponse:
    """201 with the new key, which is in no answer that is kept."""
    opens: list[str] = []

    def act(session: Session) -> Answer:
        record, secret = make(session)
        opens.append(secret)
        shown = NewKey(**KeyView.model_validate(record).model_dump(), key=None)
        return Answer(201, shown.model_dump(mode="json"), f"/v1/keys/{record.id}")

    def complete(answer: Answer) -> Answer:
        return Answer(answer.status, answer.body | {"key": opens[0]}, answer.location) if opens else answer

    return answer_once(request, context, key, body.model_dump(mode="json"), act, complete)


@audit_router.get("", response_model=Page[AuditEntryView])
def list_audit(
    request: Request, response: Response, context: AdminDep, asked: Annotated[AuditQuery, Query()]
) -> Page:
    """Who changed what, newest first, in every workspace; kept for DETRANK_AUDIT_KEPT_S."""
    with context.database.reading() as session:
        found, cursor = listed(session, None, audit.LISTING, asked)
        return paged(request, response, [AuditEntryView.model_validate(one) for one in found], cursor)
