"""What can be asked for of every kind of long work: list, look, wait, events, cancel, retry, delete.

A kind of work has a router of its own with `POST` and its files. It ends with `add_routes`, because `/{id}`
takes `/{id}.csv` for an id as well.
"""

from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.api import reading
from app.api.caching import require_unchanged
from app.api.deps import Context, ContextDep, IdempotencyKey, IfMatch, IfNoneMatch
from app.api.events import NO_MORE_EVENTS, StreamReader, reader_of
from app.api.once import accepted, answer_once
from app.api.problems import responses
from app.api.watch import until_news
from app.db.work import name_of, path_of, plural_of
from app.queue.states import ENDED
from app.schemas.common import NewPriority, Page, PageQuery, Prioritised, WaitQuery
from app.services import works
from app.services.idempotency import Answer
from app.services.listing import Listing

Act = Callable[..., Any]


@dataclass(frozen=True)
class Sentences:
    """Sentences of the OpenAPI document that are of one kind of work alone."""

    listed: str
    shown: str
    events: str
    retried: str
    deleted: str | None = None


@dataclass(frozen=True)
class Routes:
    """What tells the routes of one kind of work from those of another.

    query: what a list can be filtered by; look: what one record can be asked with.
    shown and summarised: the record as `view` and as `summary`.
    """

    listing: Listing
    query: type[PageQuery]
    view: type[BaseModel]
    summary: type[BaseModel]
    shown: Callable[[Session, Any, Any], BaseModel]
    summarised: Callable[[Session, Any], BaseModel]
    says: Sentences
    look: type[WaitQuery] = WaitQuery

    @property
    def table(self) -> Any:
        return self.listing.table


def create_once(
    request: Request,
    context: Context,
    key: str | None,
    body: Prioritised,
    routes: Routes,
    create: Callable[[Session], Any],
) -> JSONResponse:
    """202 with the row that `create` makes: what a `POST` of new work answers."""

    def act(session: Session) -> Answer:
        made = create(session)
        if body.priority:
            works.prioritise(session, context.workspace_id, routes.table, made.id, body.priority)
        return accepted(routes.shown(session, made, routes.look()), f"{path_of(routes.table)}/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json", exclude_unset=True), act)


def as_it_stands(view: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What a verb answers where there is nothing left to do."""
    return {200: {"model": view, "description": "It has ended, and is shown as it stands"}}


def standing(session: Session, routes: Routes, row: Any) -> Answer:
    """The row as it stands: 202 while there is work to be done for it, 200 where it has ended."""
    session.flush()
    body = routes.shown(session, row, routes.look()).model_dump(mode="json")
    return Answer(200 if row.state in ENDED else 202, body, f"{path_of(routes.table)}/{row.id}")


def add_routes(router: APIRouter, routes: Routes) -> None:
    """What every kind of work has, named `list_rankings`, `get_ranking`, ..."""
    _add_reading(router, routes)
    _add_events(router, routes)
    _add_acting(router, routes)
    _add_priority(router, routes)
    if routes.says.deleted is not None:
        _add_deleting(router, routes)


def _add_reading(router: APIRouter, routes: Routes) -> None:
    name, says = name_of(routes.table), routes.says
    asked_of_list: Any = Annotated[routes.query, Query()]
    asked_of_one: Any = Annotated[routes.look, Query()]

    def list_(request: Request, context: ContextDep, asked: asked_of_list) -> Response:
        return reading.page(request, context, routes.listing, asked, routes.summarised)

    router.add_api_route(
        "",
        list_,
        methods=["GET"],
        name=f"list_{plural_of(routes.table)}",
        description=says.listed,
        response_model=Page[routes.summary],  # type: ignore[name-defined]
        route_class_override=reading.paged(routes.listing, routes.query, routes.summarised),
    )

    look = reading.Look(routes.table, routes.shown)

    async def get(
        id: str, context: ContextDep, asked: asked_of_one, if_none_match: IfNoneMatch = None
    ) -> Response:
        if asked.wait > 0:
            await until_news(context.watch, routes.table, id, if_none_match, asked.wait)
        return await run_in_threadpool(reading.one, context, look, id, asked, if_none_match)

    router.add_api_route(
        "/{id}",
        get,
        methods=["GET"],
        name=f"get_{name}",
        description=says.shown,
        response_model=routes.view,
        responses=responses(404),
        route_class_override=reading.polled(look, routes.look()),
    )


def _add_events(router: APIRouter, routes: Routes) -> None:
    @router.get(
        "/{id}/events",
        name=f"get_{name_of(routes.table)}_events",
        description=routes.says.events,
        response_class=EventSourceResponse,
        responses=responses(404) | NO_MORE_EVENTS,
    )
    async def get_events(
        reader: Annotated[StreamReader, Depends(reader_of(routes.table))],
    ) -> AsyncIterable[ServerSentEvent]:
        async for event in reader.events():
            yield event


def _add_acting(router: APIRouter, routes: Routes) -> None:
    name = name_of(routes.table)
    stopped = f"Stop a {name}. One that has ended stays as it is, and answers 200."
    for verb, act, says, statuses in (
        ("cancel", works.cancel, stopped, (404,)),
        ("retry", works.retry, routes.says.retried, (404, 409)),
    ):
        router.post(
            f"/{{id}}:{verb}",
            name=f"{verb}_{name}",
            description=says,
            status_code=202,
            response_model=routes.view,
            responses=responses(*statuses) | as_it_stands(routes.view),
        )(_acting(routes, act))


def _acting(routes: Routes, act: Act) -> Callable[..., JSONResponse]:
    def endpoint(id: str, request: Request, context: ContextDep, key: IdempotencyKey = None) -> JSONResponse:
        def once(session: Session) -> Answer:
            return standing(session, routes, act(session, context.workspace_id, routes.table, id))

        return answer_once(request, context, key, None, once)

    return endpoint


def _add_priority(router: APIRouter, routes: Routes) -> None:
    name = name_of(routes.table)

    @router.patch(
        "/{id}",
        name=f"prioritise_{name}",
        description=f"Have the jobs of a {name} go before others of the workspace that wait, or after them.",
        response_model=routes.view,
        responses=responses(400, 404, 413),
    )
    def prioritise(id: str, context: ContextDep, body: NewPriority) -> BaseModel:
        with context.database.unit_of_work() as session:
            row = works.prioritise(session, context.workspace_id, routes.table, id, body.priority)
            return routes.shown(session, row, routes.look())


def _add_deleting(router: APIRouter, routes: Routes) -> None:
    @router.delete(
        "/{id}",
        name=f"delete_{name_of(routes.table)}",
        description=routes.says.deleted,
        status_code=204,
        response_class=Response,
        responses=responses(404, 409, 412),
    )
    def delete(id: str, context: ContextDep, if_match: IfMatch = None) -> None:
        with context.database.unit_of_work() as session:
            row = works.find(session, context.workspace_id, routes.table, id)
            require_unchanged(if_match, row.version)
            works.remove(session, context.workspace_id, routes.table, id)
