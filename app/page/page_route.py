"""A fault of ours, as a page: what happened, that nothing is lost, and what to do."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.api.problems import unexpected
from app.page.ask import Refused
from app.page.render import page


class PageRoute(APIRoute):
    """A route whose unexpected errors are shown to eyes, and logged as those of the API are."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await handle(request)
            except (Refused, HTTPException, RequestValidationError):
                raise
            except Exception as error:
                problem = json.loads(bytes((await unexpected(request, error)).body))
                return page(request, "error.html", 500, problem=problem)

        return shown
