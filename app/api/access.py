"""Who asks, what their key allows, and what is written down of it."""

from dataclasses import dataclass

from fastapi import Request
from fastapi.routing import APIRoute

from app.api.bodies import is_json
from app.api.openapi import operation_id
from app.db.access_tables import Scope
from app.errors import Forbidden
from app.services.audit import Deed

SAFE = ("GET", "HEAD", "OPTIONS")
# a part of something that has an entry of its own
_NO_ENTRY = ("append_upload",)
_WORDS = {
    Scope.METRICS: "read /metrics",
    Scope.READ: "read",
    Scope.WRITE: "read and change what is in its workspace",
}


@dataclass(frozen=True)
class Caller:
    """Whoever asks. key_id: None where no key is asked for."""

    workspace_id: str
    key_id: str | None
    scope: Scope


def require(caller: Caller, asked: Scope) -> None:
    """Raises Forbidden where the key is too weak, and says which would do."""
    if not caller.scope.allows(asked):
        raise Forbidden(
            f"this key ({caller.key_id}) may only {_WORDS[caller.scope]}: here a key with the scope {asked} is needed; "
            f"whoever runs the service makes one with `detrank keys create NAME --scope {asked}`"
        )


def require_for_method(caller: Caller, request: Request) -> None:
    """Raises Forbidden for a key that may not read, or for a change where it may not write."""
    require(caller, Scope.READ if request.method in SAFE else Scope.WRITE)


def deed_of(request: Request, caller: Caller) -> Deed | None:
    """What the audit log says of this request; None where it changes nothing."""
    route = request.scope.get("route")
    action = operation_id(route) if isinstance(route, APIRoute) else ""
    if request.method in SAFE or action in _NO_ENTRY:
        return None
    return Deed(caller.workspace_id, caller.key_id, action, request.url.path, request.scope.get("request_id"))


def is_upload(request: Request) -> bool:
    """Whether it begins to send a file."""
    if request.method != "POST":
        return False
    path = request.url.path
    return path == "/v1/uploads" or (path in ("/v1/datasets", "/v1/checkpoints") and not is_json(request))


def announced_bytes(request: Request) -> int:
    """How large the file is that a request begins to send; 0 where it does not say."""
    name = "upload-length" if request.url.path == "/v1/uploads" else "content-length"
    text = request.headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0
