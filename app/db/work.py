"""Columns of every row that a job works for and callers wait for: rankings, verifications, searches, studies,
pretrainings, pseudo-labellings."""

import re
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Id
from app.db.types import Json
from app.errors import Problem

_PLURALS = {"search": "searches", "study": "studies"}


class Work:
    """A row whose state is its job's (`app/queue/mirror.py`), with an event stream of its own."""

    __tablename__: Any  # str
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(24))
    request: Mapped[dict[str, Any]]  # normalised: every default filled in
    error: Mapped[Problem | None] = mapped_column(Json)
    job_id: Mapped[str | None] = mapped_column(Id)
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)


def name_of(table: type[Any]) -> str:
    """The word for one record of a table, such as `ranking` or `pseudo-labelling`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", table.__name__).lower()


def plural_of(table: type[Any]) -> str:
    name = name_of(table)
    return _PLURALS.get(name, f"{name}s")


def path_of(table: type[Any]) -> str:
    """Where the API has the records of a table."""
    return f"/v1/{plural_of(table)}"
