"""Reading records: one as it is or 304, and pages of many, from kept bytes where they are of the right version.

What is polled and listed most costs most of the framework's time, not ours: the routes made here read requests without
query parameters, or with those of every list alone, themselves.
"""

import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session

from app.api.caching import HEADERS, matches, tag
from app.api.deps import Context, context_of
from app.api.kept import Shown
from app.schemas.common import PageQuery
from app.services.listing import Listing, keys_of_page, rows_of
from app.services.records import owned, versioned

JSON = "application/json"
SUMMARY = "summary"
LONGEST_TAG = 2000

# `limit`, `cursor` and `sort` as nobody needs to escape them
_OF_EVERY_LIST = re.compile(r"(?:(?:limit=[0-9]{1,9}|cursor=[A-Za-z0-9_-]{1,200}|sort=-?created_at)(?:&|$))*")

Query = TypeVar("Query", bound=PageQuery)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Look:
    """How one record of a table is shown: `shown(session, row, asked)`."""

    table: Any
    shown: Callable[[Session, Any, Any], BaseModel]


def one(
    context: Context, look: Look, id: str, asked: BaseModel | None, if_none_match: str | None
) -> Response:
    """The record, or 304 where the caller has it already. Raises NotFound."""
    form = asked.model_dump_json(exclude_defaults=True, exclude={"wait"}) if asked is not None else ""
    shown = Shown(look.table.__tablename__, id, form)
    version = versioned(context.database, look.table, context.workspace_id, id)
    if version is not None:
        if matches(if_none_match, version):
            return Response(status_code=304, headers=HEADERS | {"ETag": tag(version)})
        if (body := context.kept.get(shown, version)) is not None:
            return _answer(body, version)
    with context.database.reading() as session:
        row = owned(session, look.table, context.workspace_id, id)
        body = look.shown(session, row, asked).model_dump_json().encode()
    return _answer(context.kept.keep(shown, row.version, body), row.version)


def polled(look: Look, nothing_asked: BaseModel | None) -> type[APIRoute]:
    """The class of a route of one record that answers requests without query parameters itself, in a third of the time."""

    class Polled(APIRoute):
        def get_route_handler(self) -> Handler:
            whole = super().get_route_handler()

            async def handler(request: Request) -> Response:
                known = request.headers.get("if-none-match")
                if request.scope["query_string"] or len(known or "") > LONGEST_TAG:
                    return await whole(request)
                context = await context_of(request)
                id = request.path_params["id"]
                return await run_in_threadpool(one, context, look, id, nothing_asked, known)

            return handler

    return Polled


def paged(
    listing: Listing, query: type[PageQuery], summarised: Callable[[Session, Any], BaseModel]
) -> type[APIRoute]:
    """The class of a route of a list that answers requests without filters itself."""

    class Paged(APIRoute):
        def get_route_handler(self) -> Handler:
            whole = super().get_route_handler()

            async def handler(request: Request) -> Response:
                asked = _without_filters(query, request.scope["query_string"])
                if asked is None:
                    return await whole(request)
                context = await context_of(request)
                return await run_in_threadpool(page, request, context, listing, asked, summarised)

            return handler

    return Paged


def _without_filters(query: type[Query], asked: bytes) -> Query | None:
    """What a query string asks of a list; None where it has filters or anything that must be refused or read with care."""
    text = asked.decode("latin-1")
    if not _OF_EVERY_LIST.fullmatch(text):
        return None
    pairs = parse_qsl(text)
    if len(pairs) != len(given := dict(pairs)):
        return None
    try:
        return query.model_validate(given)
    except ValidationError:
        return None


def page(
    request: Request,
    context: Context,
    listing: Listing,
    asked: PageQuery,
    summarised: Callable[[Session, Any], BaseModel],
) -> Response:
    """One page of a list; `Link: rel="next"` where there is another."""
    table = listing.table.__tablename__
    keys, cursor = keys_of_page(context.database, context.workspace_id, listing, asked)
    bodies = context.kept.get_all([(Shown(table, id, SUMMARY), version) for id, version in keys])
    if None in bodies:
        missing = [id for (id, _), body in zip(keys, bodies, strict=True) if body is None]
        found = {}
        with context.database.reading() as session:
            for row in rows_of(session, listing, missing):
                body = summarised(session, row).model_dump_json().encode()
                found[row.id] = context.kept.keep(Shown(table, row.id, SUMMARY), row.version, body)
        # what was deleted between the two queries is not there
        bodies = [body or found.get(id) for (id, _), body in zip(keys, bodies, strict=True)]
    return _page(request, [body for body in bodies if body is not None], cursor)


def _answer(body: bytes, version: int) -> Response:
    return Response(body, media_type=JSON, headers=HEADERS | {"ETag": tag(version)})


def _page(request: Request, bodies: Sequence[bytes], cursor: str | None) -> Response:
    headers = {}
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    written = f'"{cursor}"' if cursor is not None else "null"
    body = b'{"items":[%s],"next_cursor":%s}' % (b",".join(bodies), written.encode())
    return Response(body, media_type=JSON, headers=headers)
