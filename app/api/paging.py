"""The answer with one page of a list, and the link to the next."""

from collections.abc import Sequence

from fastapi import Request, Response
from pydantic import BaseModel

from app.schemas.common import Page


def paged(request: Request, response: Response, views: Sequence[BaseModel], next_cursor: str | None) -> Page:
    """The page; `Link: rel="next"` where there is another."""
    if next_cursor is not None:
        url = request.url.include_query_params(cursor=next_cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return Page(items=list(views), next_cursor=next_cursor)
