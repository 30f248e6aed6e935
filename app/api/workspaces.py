"""/v1/workspace, one's own, and /v1/workspaces, for whoever runs the service"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from app.api.deps import AdminDep, Context, ContextDep
from app.api.paging import paged
from app.api.problems import responses
from app.db.access_tables import Workspace
from app.errors import NotFound
from app.queue import beliefs
from app.schemas.common import Page, PageQuery
from app.schemas.workspaces import OwnWorkspaceUpdate, OwnWorkspaceView, Share, WorkspaceUpdate, WorkspaceView
from app.services import quotas
from app.services.listing import Listing, listed

router = APIRouter(prefix="/v1", tags=["access"])

LISTING = Listing(Workspace)


@router.get("/workspace", response_model=OwnWorkspaceView)
def get_workspace(context: ContextDep) -> OwnWorkspaceView:
    """Your workspace: what it stores and has queued, what it may, and what your key may."""
    settings = context.settings
    rates: dict[str, Any] = {
        name: getattr(settings, name) or None
        for name in (
            "key_requests_per_minute",
            "workspace_requests_per_minute",
            "key_uploads_per_hour",
            "workspace_uploads_per_hour",
        )
    }
    with context.database.reading() as session:
        shown = _shown(session, context, session.get_one(Workspace, context.workspace_id))
    return OwnWorkspaceView(**shown, **rates, scope=context.scope.value)


@router.patch("/workspace", response_model=OwnWorkspaceView, responses=responses(400, 413))
def change_workspace(context: ContextDep, body: OwnWorkspaceUpdate) -> OwnWorkspaceView:
    """Say what may be learned from your workspace's verifications. What is predicted follows within seconds."""
    with context.database.unit_of_work() as session:
        found = session.get_one(Workspace, context.workspace_id)
        if body.learns not in (None, found.learns):
            found.learns = bool(body.learns)
            beliefs.forget(session, found.id)
    return get_workspace(context)


@router.get("/workspaces", response_model=Page[WorkspaceView])
def list_workspaces(
    request: Request, response: Response, context: AdminDep, asked: Annotated[PageQuery, Query()]
) -> Page:
    """All workspaces, newest first, with what each stores and has queued."""
    with context.database.reading() as session:
        found, cursor = listed(session, None, LISTING, asked)
        views = [WorkspaceView(**_shown(session, context, one)) for one in found]
        return paged(request, response, views, cursor)


@router.get("/workspaces/{id}", response_model=WorkspaceView, responses=responses(404))
def get_any_workspace(id: str, context: AdminDep) -> WorkspaceView:
    """One workspace, whoever's it is."""
    with context.database.reading() as session:
        return WorkspaceView(**_shown(session, context, _found(session, id)))


@router.patch("/workspaces/{id}", response_model=WorkspaceView, responses=responses(400, 404, 413))
def update_workspace(id: str, context: AdminDep, body: WorkspaceUpdate) -> WorkspaceView:
    """Give a workspace quotas and a priority of its own."""
    with context.database.unit_of_work() as session:
        found = _found(session, id)
        for name, value in body.model_dump(exclude_unset=True).items():
            if name != "priority" or value is not None:
                setattr(found, name, value)
        session.flush()
        return WorkspaceView(**_shown(session, context, found))


def _found(session: Session, id: str) -> Workspace:
    found = session.get(Workspace, id) if id.isascii() and id.isprintable() else None
    if found is None:
        raise NotFound(f"there is no workspace {id!r}; GET /v1/workspaces lists them")
    return found


def _shown(session: Session, context: Context, workspace: Workspace) -> dict[str, Any]:
    may = quotas.quotas_of(workspace, context.settings)
    return {
        "id": workspace.id,
        "name": workspace.name,
        "priority": workspace.priority,
        "learns": workspace.learns,
        "bytes": Share(used=quotas.stored_bytes(session, workspace.id), limit=may.max_bytes),
        "queued_jobs": Share(used=quotas.queued_jobs(session, workspace.id), limit=may.max_queued_jobs),
    }
