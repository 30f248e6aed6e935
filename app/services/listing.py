"""Pages of a list by keyset: a page begins after the last id of the page before, so rows that are added meanwhile move nothing."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, select, union_all
from sqlalchemy.orm import Session, defer

from app.db.engine import Database
from app.errors import InvalidRequest
from app.ids import earliest_id
from app.schemas.common import PageQuery

CLOCKS_APART = timedelta(days=1)
NEWEST_FIRST = "-created_at"
_WITHOUT_FILTERS = {"limit", "cursor", "sort"}
_ID = re.compile(r"[a-z]+_[0-9a-f]{32}|ws_default")


@dataclass(frozen=True)
class Listing:
    """How the rows of a table are listed.

    prefix: what its ids begin with, which tell when they were made; None where they do not.
    filters: the condition for a value of a filter, or several of which no row meets two; a filter that is not among them
    asks for an equal column.
    unread: columns that no list shows and that may be large.
    """

    table: Any
    prefix: str | None = None
    filters: Mapping[str, Callable[[Any], ColumnElement[bool] | list[ColumnElement[bool]]]] = field(
        default_factory=dict
    )
    unread: tuple[str, ...] = ()


def listed(
    session: Session, workspace_id: str | None, listing: Listing, asked: PageQuery
) -> tuple[list[Any], str | None]:
    """Rows of a page, of one workspace or (None) of all, and the cursor of the next or None.

    Raises InvalidRequest for a foreign cursor.
    """
    keys, cursor = _page(session, select(listing.table.id), workspace_id, listing, asked)
    rows = {row.id: row for row in rows_of(session, listing, [key.id for key in keys])}
    return [rows[key.id] for key in keys if key.id in rows], cursor


def keys_of_page(
    database: Database, workspace_id: str, listing: Listing, asked: PageQuery
) -> tuple[list[tuple[str, int]], str | None]:
    """(id, version) of each row of a page, and the cursor; for those who have some of the rows already. Raises as `listed`."""
    table = listing.table
    if asked.model_fields_set <= _WITHOUT_FILTERS:
        values = {"workspace_id": workspace_id, "most": asked.limit + 1}
        if asked.cursor is not None:
            values["last"] = _decoded(asked.cursor)
        query = _keys(table, asked.sort, asked.cursor is not None)
        rows, cursor = _cut(database.glances(query, values), asked)
    else:
        with database.reading() as session:
            rows, cursor = _page(session, select(table.id, table.version), workspace_id, listing, asked)
    return [(id, version) for id, version in rows], cursor


@cache
def _keys(table: Any, sort: str, after: bool) -> Select[Any]:
    """`_page` without filters: written once, because to write it takes three times as long as to answer it."""
    query = select(table.id, table.version).where(table.workspace_id == bindparam("workspace_id"))
    newest_first = sort == NEWEST_FIRST
    if after:
        query = query.where(table.id < bindparam("last") if newest_first else table.id > bindparam("last"))
    return query.order_by(table.id.desc() if newest_first else table.id.asc()).limit(bindparam("most"))


def _cut(rows: Sequence[Any], asked: PageQuery) -> tuple[Sequence[Any], str | None]:
    page = rows[: asked.limit]
    return page, _encoded(page[-1].id) if len(rows) > asked.limit else None


def rows_of(session: Session, listing: Listing, ids: Sequence[str]) -> Sequence[Any]:
    """The rows with these ids, in any order, as lists show them."""
    if not ids:
        return []
    table = listing.table
    return session.scalars(select(table).options(*_unread(listing)).where(table.id.in_(ids))).all()


def _unread(listing: Listing) -> list[Any]:
    return [defer(getattr(listing.table, name)) for name in listing.unread]


def _page(
    session: Session, query: Select[Any], workspace_id: str | None, listing: Listing, asked: PageQuery
) -> tuple[Sequence[Any], str | None]:
    table = listing.table
    query = query.where(*_between(listing, asked))
    if workspace_id is not None:
        query = query.where(table.workspace_id == workspace_id)
    queries = [query]
    for name, value in asked.model_dump(exclude=set(PageQuery.model_fields), exclude_none=True).items():
        found = listing.filters[name](value) if name in listing.filters else getattr(table, name) == value
        conditions = found if isinstance(found, list) else [found]
        queries = [query.where(condition) for query in queries for condition in conditions]
    # each in its order, so that an index gives its first rows, and of those the first
    parts = [_first(query, table.id, asked) for query in queries]
    if len(parts) > 1:
        both = union_all(*(select(part.subquery()) for part in parts)).subquery()
        parts = [_first(select(both), both.c.id, asked)]
    # columns, not records: the connection has them in half the time of the session
    return _cut(session.connection().execute(parts[0]).all(), asked)


def _first(query: Select[Any], id: Any, asked: PageQuery) -> Select[Any]:
    """The rows of a page, and one more. Ids made later sort later, so they are also the order of creation."""
    newest_first = asked.sort == NEWEST_FIRST
    if asked.cursor is not None:
        last = _decoded(asked.cursor)
        query = query.where(id < last if newest_first else id > last)
    return query.order_by(id.desc() if newest_first else id.asc()).limit(asked.limit + 1)


def _between(listing: Listing, asked: PageQuery) -> list[ColumnElement[bool]]:
    for bound, name in ((asked.created_after, "created_after"), (asked.created_before, "created_before")):
        if bound is not None and bound.tzinfo is None:
            raise InvalidRequest(
                f"{name} has no time zone; write e.g. 2026-05-01T12:00:00Z",
                errors=[{"pointer": f"/{name}", "in": "query", "message": "has no time zone"}],
            )
    table, conditions = listing.table, []
    # the time in an id leads to the rows without reading the others; it is of another clock than `created_at`
    prefix = listing.prefix
    if asked.created_after is not None:
        conditions.append(table.created_at > asked.created_after)
        if prefix is not None:
            conditions.append(table.id > earliest_id(prefix, _moved(asked.created_after, -CLOCKS_APART)))
    if asked.created_before is not None:
        conditions.append(table.created_at < asked.created_before)
        if prefix is not None:
            conditions.append(table.id < earliest_id(prefix, _moved(asked.created_before, CLOCKS_APART)))
    return conditions


def _moved(when: datetime, by: timedelta) -> datetime:
    try:
        return when + by
    except OverflowError:
        return when


def _encoded(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    try:
        last = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        last = ""
    if not _ID.fullmatch(last):
        raise InvalidRequest(
            "this cursor is not one of ours; use next_cursor of the page before, or leave it out",
            errors=[{"pointer": "/cursor", "in": "query", "message": "not a cursor of this list"}],
        )
    return last


def contains(column: Any, part: str) -> Any:
    """Whether the column has `part` in it, in any case; % and _ mean themselves."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.ilike(f"%{escaped}%", escape="\\")
