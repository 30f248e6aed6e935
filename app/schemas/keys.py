"""API keys, and the log of what was done with them."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.db.access_tables import Scope
from app.schemas.common import Body, Line, Name, OneOf, PageQuery, View

ScopeName = Annotated[str, OneOf(tuple(Scope))]


class KeyCreate(Body):
    name: Name = Field(description="whose key it is")
    workspace: Name = Field(
        default="default", description="by its name; made where there is none. Keys of one share everything"
    )
    scope: ScopeName = Field(
        default=Scope.WRITE,
        description="read; write: also changes what is in its workspace; admin: also keys, quotas and the audit log of "
        "all workspaces; metrics: nothing but /metrics",
    )
    expires_in_days: float | None = Field(default=None, gt=0, le=36500, description="null: never")


class KeyRotate(Body):
    grace_hours: float = Field(
        default=24, ge=0, le=24 * 90, description="for so long the old key goes on opening"
    )


class KeyView(View):
    """A key, without what opens: that is shown once, when it is made."""

    id: str
    name: str
    prefix: str = Field(description="its first characters, to tell keys apart")
    workspace_id: str
    scope: ScopeName
    created_at: datetime
    last_used_at: datetime | None = Field(description="to ten minutes")
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKey(KeyView):
    key: str | None = Field(
        description="the key itself, this once; null where an `Idempotency-Key` repeats the request"
    )


class KeyQuery(PageQuery):
    workspace_id: Annotated[str, Line(48)] | None = None


class AuditEntryView(View):
    """One change: by whose key, what, when, in which request."""

    id: str
    created_at: datetime
    workspace_id: str
    key_id: str | None = Field(
        description="null: the service asked for no key, or it was done by command line"
    )
    action: str = Field(description="the operation as this document names it", examples=["create_ranking"])
    resource: str = Field(description="path of what was made, changed or deleted")
    request_id: str | None


class AuditQuery(PageQuery):
    workspace_id: Annotated[str, Line(48)] | None = None
    key_id: Annotated[str, Line(48)] | None = None
    action: Annotated[str, Line(60)] | None = None
    resource: Annotated[str, Line(200)] | None = None
