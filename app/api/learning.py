"""What every kind of work that trains can be asked for besides: its curves, pictures and plots."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from app.api.caching import cached
from app.api.deps import ContextDep, IfNoneMatch
from app.api.files import CSV, PICTURE, picture, table
from app.api.problems import responses
from app.db.work import name_of
from app.schemas.verifications import Curves
from app.services import verification_views, works


@dataclass(frozen=True)
class Learning:
    """curves: the points of a row, so far or whole; the others: sentences of the OpenAPI document."""

    table: Any
    curves: Callable[[Session, Any], list[dict[str, Any]]]
    as_csv: str
    as_json: str
    picture: str
    plot: str


def add_learning_routes(router: APIRouter, learning: Learning) -> None:
    """`get_verification_curves`, `get_verification_picture`, ...; to be added before those of `work.add_routes`."""
    name = name_of(learning.table)

    @router.get(
        "/{id}/curves.csv",
        name=f"get_{name}_curves_csv",
        description=learning.as_csv,
        response_class=Response,
        responses=responses(404) | CSV,
    )
    def get_curves_csv(id: str, context: ContextDep) -> Response:
        with context.database.reading() as session:
            row = works.find(session, context.workspace_id, learning.table, id)
            text = verification_views.curves_csv(learning.curves(session, row))
        return table(text, f"{id}.csv")

    @router.get(
        "/{id}/curves",
        name=f"get_{name}_curves",
        description=learning.as_json,
        response_model=Curves,
        responses=responses(404),
    )
    def get_curves(id: str, context: ContextDep, if_none_match: IfNoneMatch = None) -> Response:
        with context.database.reading() as session:
            row = works.find(session, context.workspace_id, learning.table, id)
            return cached(
                if_none_match,
                row.version,
                lambda: Curves.model_validate({"items": learning.curves(session, row)}),
            )

    _add_files(router, learning, "picture", learning.picture)
    _add_files(router, learning, "plot", learning.plot)


def _add_files(router: APIRouter, learning: Learning, kind: str, says: str) -> None:
    @router.get(
        f"/{{id}}/{kind}s/{{name}}",
        name=f"get_{name_of(learning.table)}_{kind}",
        description=says,
        response_class=FileResponse,
        responses=responses(404) | PICTURE,
    )
    def get_file(id: str, name: str, context: ContextDep) -> Response:
        with context.database.reading() as session:
            row = works.find(session, context.workspace_id, learning.table, id)
        return picture(context.store, row, f"{kind}s", name)
