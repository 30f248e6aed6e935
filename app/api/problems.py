"""Every error as a problem document (RFC 9457, application/problem+json), and the list of them for OpenAPI."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.errors import Conflict, DetrankError, InvalidRequest, MalformedRequest, Unavailable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
_MAX_ERRORS = 100

log = logging.getLogger("detrank.api")


def problem_response(
    request: Request, error: DetrankError, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed with `error`."""
    body = error.to_dict()
    body["errors"] = body["errors"][:_MAX_ERRORS]
    body["instance"] = request.url.path
    body["request_id"] = request.scope.get("request_id")
    headers = dict(headers or {})
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="detrank"'
    if error.retryable:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return JSONResponse(body, error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every way to fail answer with a problem document."""
    app.add_exception_handler(DetrankError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(IntegrityError, _overtaken)
    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(Exception, unexpected)


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


async def _of_the_framework(request: Request, error: HTTPException) -> JSONResponse:
    answer: type[DetrankError] = type("Answer", (DetrankError,), {})
    answer.code = _phrase(error.status_code).lower().replace(" ", "_").replace("-", "_")
    answer.status, answer.title = error.status_code, _phrase(error.status_code)
    details = {
        404: f"there is nothing at {request.url.path}; /docs lists what there is",
        405: f"{request.method} is not possible here; possible: {(error.headers or {}).get('Allow', 'see /docs')}",
    }
    return problem_response(
        request, answer(details.get(error.status_code, str(error.detail))), dict(error.headers or {})
    )


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
