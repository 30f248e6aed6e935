"""How a database finds the rows of every list, with each of its filters."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import event

from app.api import jobs, pretrainings, pseudo_labellings, rankings, searches, studies, verifications
from app.db.engine import Database
from app.schemas.checkpoints import CheckpointQuery
from app.schemas.common import PageQuery
from app.schemas.datasets import DatasetQuery
from app.schemas.keys import AuditQuery
from app.schemas.verifications import SubsetQuery
from app.schemas.webhooks import DeliveriesOf
from app.services import audit, checkpoints, datasets, webhooks
from app.services import verifications as verification_records
from app.services.listing import Listing, listed

_WORK = (jobs, rankings, verifications, searches, studies, pretrainings, pseudo_labellings)
LISTS: list[tuple[type[PageQuery], Listing]] = [
    *((each.ROUTES.query, each.ROUTES.listing) for each in _WORK),
    (DatasetQuery, datasets.LISTING),
    (CheckpointQuery, checkpoints.LISTING),
    (SubsetQuery, verification_records.SUBSETS),
    (PageQuery, webhooks.LISTING),
    (DeliveriesOf, webhooks.DELIVERIES),
]
# of all workspaces; those of keys and workspaces have as many rows as somebody typed
OF_ALL: list[tuple[type[PageQuery], Listing]] = [(AuditQuery, audit.LISTING)]
# tried in turn until one is valid; rare ones, so that whoever walks to them walks far
VALUES: dict[str, tuple[Any, ...]] = {
    "state": ("cancelled", "invalid", "failed"),
    "kind": ("pretrain", "backbone"),
    "supervision": ("none",),
    "architecture": ("timm/none",),
    "licence": ("MIT",),
    "name": ("nothing has it",),
    "max_parameters": (5,),
    "created_before": ("2001-01-01T00:00:00Z",),
    "created_after": ("2099-01-01T00:00:00Z",),
    "sort": ("created_at",),
}


@dataclass(frozen=True)
class Asked:
    """A list as somebody asks for it: `name` says how."""

    name: str
    listing: Listing
    query: PageQuery
    filter: str | None = None


def every_list(ids: dict[str, str] | None = None) -> Iterator[Asked]:
    """Each list without and with each of its filters; `ids` for those that name a record, by the name of the filter."""
    for made, listing in [*LISTS, *OF_ALL]:
        path = listing.table.__tablename__
        whose = {"webhook_id": "wh_none"} if made is DeliveriesOf else {}
        yield Asked(path, listing, made(**whose, limit=100))
        for name in made.model_fields:
            if name in ("limit", "cursor"):
                continue
            for value in _values(made, name, ids or {}):
                query = made(**whose | {name: value}, limit=100)
                own = name if name not in PageQuery.model_fields else None
                yield Asked(f"{path}?{name}={value}", listing, query, own)


def _values(made: type[PageQuery], name: str, ids: dict[str, str]) -> list[Any]:
    if name == "state" and made is jobs.ROUTES.query:
        return ["queued", "running", "cancelling", "cancelled"]
    prefixes = {"dataset_id": "ds", "checkpoint_id": "ckpt", "ranking_id": "rk"}
    for value in VALUES.get(name, (ids.get(name, prefixes.get(name, "xx") + "_" + "0" * 32),)):
        try:
            made.__pydantic_validator__.validate_assignment(made.model_construct(), name, value)
        except ValidationError:
            continue
        return [value]
    raise AssertionError(f"no value for {name} of {made.__name__}")


def plan(database: Database, asked: Asked, workspace_id: str, *, as_it_is: bool = False) -> list[str]:
    """The lines of the database's plan for the rows' ids; unless `as_it_is`, as if there were many rows."""
    said: list[tuple[str, Any]] = []
    of_all = any(asked.listing is listing for _, listing in OF_ALL)

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        said.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with database.reading() as session:
            listed(session, None if of_all else workspace_id, asked.listing, asked.query)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    statement, parameters = next(each for each in said if each[0].startswith("SELECT"))
    sqlite = database.engine.dialect.name == "sqlite"
    with database.engine.connect() as connection:
        if not sqlite and not as_it_is:
            # few rows are read whole whatever indexes there are
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        word = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        return [row[-1] for row in connection.exec_driver_sql(word + statement, parameters)]


def scans(lines: list[str]) -> list[str]:
    """The lines that read a whole table; a walk through what was chosen already, or by an index up to the end of a page, is none."""
    return [line for line in lines if re.search(r"Seq Scan on (?!\w*subq)|^SCAN (?!anon)\w+$", line.strip())]
