"""Weak ETags from a record's version: polling what has not changed costs no body."""

import re
from collections.abc import Callable

from fastapi import Response
from pydantic import BaseModel

from app.errors import PreconditionFailed

HEADERS = {"Cache-Control": "private, no-cache"}
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def tag(version: int) -> str:
    return f'W/"{version}"'


def matches(header: str | None, version: int) -> bool:
    """Whether an `If-None-Match` or `If-Match` header names this version, or any."""
    if header is None:
        return False
    return header.strip() == "*" or str(version) in _TAG.findall(header)


def cached(if_none_match: str | None, version: int, body: Callable[[], BaseModel]) -> Response:
    """304 where the caller has this version already, else the body; both with the tag."""
    headers = HEADERS | {"ETag": tag(version)}
    if matches(if_none_match, version):
        return Response(status_code=304, headers=headers)
    return Response(body().model_dump_json(), media_type="application/json", headers=headers)


def require_unchanged(if_match: str | None, version: int) -> None:
    """Raises PreconditionFailed where the caller saw another version."""
    if if_match is not None and not matches(if_match, version):
        raise PreconditionFailed(f"it is at {tag(version)} by now: read it again, then decide")
