"""Workspaces, keys and the audit log."""

from datetime import datetime
from typing import Any

from detrank import http
from detrank.documents import Addressed, Record
from detrank.methods import IO, call
from detrank.resource import Kept, Resource
from detrank.steps import Steps


class Key(Addressed):
    """An API key. What opens, `key`, is shown once, where it is made."""

    path = "keys"
    name: str
    prefix: str
    workspace_id: str
    scope: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class AuditEntry(Addressed):
    """One change: by whose key, what, when, in which request."""

    path = "audit"
    created_at: datetime
    workspace_id: str
    key_id: str | None
    action: str
    resource: str
    request_id: str | None


class Workspace(Addressed):
    """What a workspace stores and has queued, `{"used", "limit"}`, and how much it may."""

    path = "workspaces"
    name: str
    priority: int
    learns: bool
    bytes: Record
    queued_jobs: Record


class Keys(Kept[IO, Key]):
    """API keys of every workspace: for whoever runs the service. `delete` closes one; its record stays."""

    @call
    def create(
        self,
        name: str,
        *,
        workspace: str | None = None,
        scope: str | None = None,
        expires_in_days: float | None = None,
    ) -> Steps[Key]:
        """scope: metrics, read, write or admin."""
        fields = {"name": name, "workspace": workspace, "scope": scope, "expires_in_days": expires_in_days}
        return self.made((yield from http.post(self._path, http.given(fields))))

    @call
    def rotate(self, id: str, *, grace_hours: float | None = None) -> Steps[Key]:
        """A key in place of one, which goes on opening for `grace_hours`, by default a day."""
        body = http.given({"grace_hours": grace_hours})
        return self.made((yield from http.post(f"{self._path}/{id}:rotate", body)))


class Audit(Resource[IO, AuditEntry]):
    """Who changed what: for whoever runs the service. Filters: key_id, action, resource, workspace_id."""


class Workspaces(Resource[IO, Workspace]):
    """All there are, for whoever runs the service; and one's own."""

    @call
    def own(self) -> Steps[Workspace]:
        """Yours, with the `scope` of your key and the rates that hold for it."""
        return self.made((yield from http.get("/v1/workspace")))

    @call
    def change(self, **fields: Any) -> Steps[Workspace]:
        """Of yours. Fields: learns, whether your own verifications sharpen what is predicted."""
        return self.made((yield from http.request("PATCH", "/v1/workspace", json=fields)).json())

    @call
    def set(self, id: str, **fields: Any) -> Steps[Workspace]:
        """Fields: max_bytes, max_queued_jobs (0: any number), priority."""
        answer = yield from http.request("PATCH", f"{self._path}/{id}", json=http.given(fields))
        return self.made(answer.json())
