"""Pages of a list by keyset: a page begins where the last id of the page before ended, whatever came in between."""

import base64
import binascii
import re
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import Session

from app.errors import InvalidRequest

Record = TypeVar("Record")
_ID = re.compile(r"[a-z]+_[0-9a-f]{32}")


class Paging(Protocol):
    limit: int
    cursor: str | None
    sort: str
    created_after: datetime | None
    created_before: datetime | None


def page(
    session: Session, query: Select[tuple[Any]], model: Any, paging: Paging
) -> tuple[list[Any], str | None]:
    """Records of one page and the cursor of the next, None on the last. Raises InvalidRequest for a foreign cursor."""
    for bound, name in ((paging.created_after, "created_after"), (paging.created_before, "created_before")):
        if bound is not None and bound.tzinfo is None:
            raise InvalidRequest(
                f"{name} has no time zone; write e.g. 2026-05-01T12:00:00Z",
                errors=[{"pointer": f"/{name}", "in": "query", "message": "has no time zone"}],
            )
    if paging.created_after is not None:
        query = query.where(model.created_at > paging.created_after)
    if paging.created_before is not None:
        query = query.where(model.created_at < paging.created_before)
    newest_first = paging.sort == "-created_at"
    if paging.cursor is not None:
        last = _decoded(paging.cursor)
        query = query.where(model.id < last if newest_first else model.id > last)
    # ids made later sort later, so the primary key is also the order of creation
    query = query.order_by(model.id.desc() if newest_first else model.id.asc()).limit(paging.limit + 1)
    records = list(session.scalars(query))
    more = len(records) > paging.limit
    records = records[: paging.limit]
    return records, _encoded(records[-1].id) if more else None


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
