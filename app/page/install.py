"""Puts the page into the service."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.page import (
    key_routes,
    problem_pages,
    ranking_routes,
    review_routes,
    routes,
    sign_in,
    static_files,
    verification_routes,
    work_routes,
)
from app.page.ask import Refused


def install(app: FastAPI) -> None:
    """Adds the page's addresses; an address that is nobody's is a page to a browser, a problem document to others."""
    for part in (
        static_files,
        sign_in,
        problem_pages,
        key_routes,
        ranking_routes,
        review_routes,
        verification_routes,
        work_routes,
        routes,
    ):
        app.include_router(part.router)
    as_problem: Any = app.exception_handlers[HTTPException]

    async def of_the_framework(request: Request, error: HTTPException) -> Response:
        for_eyes = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1")
        if error.status_code == 404 and request.method == "GET" and for_eyes:
            return routes.nothing_here(request)
        return await as_problem(request, error)

    handlers: dict[type[Exception], Any] = {Refused: routes.refused, HTTPException: of_the_framework}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
