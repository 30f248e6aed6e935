"""Every error as a problem document (RFC 9457, application/problem+json), and their list for OpenAPI."""

import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.errors import (
    Conflict,
    DetrankError,
    Forbidden,
    InvalidRequest,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)

# what the framework refuses by itself
_OF_THE_FRAMEWORK: dict[int, type[DetrankError]] = {
    kind.status: kind
    for kind in (MalformedRequest, Forbidden, NotFound, MethodNotAllowed, TooLarge, UnsupportedMedia)
}
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
_MAX_ERRORS = 100

log = logging.getLogger("detrank.api")


def problem_response(
    request: Request, error: DetrankError, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed with `error`."""
    body = error.to_dict() | {
        "errors": error.errors[:_MAX_ERRORS],
        "instance": request.url.path,
        "request_id": request.scope.get("request_id"),
    }
    headers = dict(headers or {})
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="detrank"'
    if error.retryable:
        headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    return JSONResponse(body, error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every way to fail answer with a problem document."""
    handlers: dict[type[Exception], Any] = {
        DetrankError: _expected,
        RequestValidationError: _invalid,
        HTTPException: _of_the_framework,
        ClientDisconnect: _gone,
        IntegrityError: _overtaken,
        OperationalError: _database_away,
        Exception: unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a router or route: these statuses answer with a problem document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _phrase(status), "content": content} for status in statuses}


async def _expected(request: Request, error: DetrankError) -> JSONResponse:
    return problem_response(request, error)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem_response(
            request, MalformedRequest(f"the body is not JSON: {faults[0].get('ctx', {}).get('error', '')}")
        )
    return problem_response(request, invalid(faults))


def invalid(faults: Sequence[Any]) -> InvalidRequest:
    """One error for all that pydantic found, with a pointer to each field."""
    errors = []
    for fault in faults[:_MAX_ERRORS]:
        place, *path = [str(part) for part in fault["loc"]] or ["body"]
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "is not known here; leave it out, or see /docs for what there is"
        entry = {"pointer": pointer, "message": message}
        errors.append(entry if place == "body" else entry | {"in": place})
    named = ", ".join(dict.fromkeys(error["pointer"] or "the body" for error in errors[:5]))
    count = "1 field is wrong" if len(errors) == 1 else f"{len(errors)} fields are wrong"
    return InvalidRequest(
        f"{count}: {named}: {errors[0]['message']}" if errors else "it is not valid", errors=errors
    )


async def _of_the_framework(request: Request, error: HTTPException) -> Response:
    if error.status_code < HTTPStatus.BAD_REQUEST:
        return Response(status_code=error.status_code)
    others = InvalidRequest if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else DetrankError
    answer = _OF_THE_FRAMEWORK.get(error.status_code, others)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := _allowed(request)):
        headers["Allow"] = allowed
    details = {
        404: f"there is nothing at {request.url.path}; /docs lists what there is",
        405: f"{request.method} is not possible here; possible: {headers.get('Allow', 'see /docs')}",
    }
    return problem_response(request, answer(details.get(error.status_code, str(error.detail))), headers)


def _allowed(request: Request) -> str:
    """Every method of the path that was asked for; the framework names those of its first route alone."""
    methods: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        pattern = "".join(
            "[^/]+" if piece.startswith("{") else re.escape(piece)
            for piece in re.split(r"(\{[^}]+\})", template)
        )
        if re.fullmatch(pattern, request.url.path):
            methods |= {method.upper() for method in operations}
    return ", ".join(sorted(methods))


async def _gone(request: Request, _: ClientDisconnect) -> JSONResponse:
    # nobody reads this; it ends the request without the noise of an unexpected error
    return problem_response(
        request, MalformedRequest("the connection ended before the body did; send it again")
    )


async def _overtaken(request: Request, error: IntegrityError) -> JSONResponse:
    log.warning("a record changed under a request: %s", error.orig)
    return problem_response(
        request,
        Conflict("what it refers to was changed or deleted at the same moment; look again and repeat it"),
    )


async def _database_away(request: Request, error: OperationalError) -> JSONResponse:
    if "disk is full" in str(error.orig):
        log.error("the database's disk is full")
        return problem_response(
            request, StorageFull("the disk of the database is full: free some room and repeat the request")
        )
    log.error("the database does not answer: %s", error.orig)
    return problem_response(request, Unavailable("the database does not answer; try again in a moment"))


async def unexpected(request: Request, error: Exception) -> JSONResponse:
    """500 without any of our insides; the log has them under the request's id."""
    log.error("unexpected error", exc_info=error, extra={"request_id": request.scope.get("request_id")})
    request_id = request.scope.get("request_id")
    return problem_response(
        request, DetrankError(f"it is our fault, not yours; the log tells more under request id {request_id}")
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Checksum Mismatch" if status == 460 else f"Status {status}"
