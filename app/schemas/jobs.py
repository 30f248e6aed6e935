"""Answers about jobs, workers and events."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.schemas.common import JobStateName, PageQuery, View, text

JobKindName = Literal["ingest", "inspect", "score", "rank"]


class Progress(BaseModel):
    """How far it is; `fraction` (0..1) and `eta_s` are null where nobody can know."""

    done: int
    total: int | None
    unit: str | None
    fraction: float | None
    eta_s: float | None
    message: str | None


class JobView(View):
    """One unit of queued work."""

    id: str
    kind: JobKindName
    state: JobStateName
    stage: str | None
    resource_id: str
    checkpoint_id: str | None = Field(description="the candidate that a score job works for")
    queue: str
    attempt: int
    max_attempts: int
    worker: str | None
    progress: Progress
    error: dict[str, Any] | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobQuery(PageQuery):
    state: JobStateName | None = None
    kind: JobKindName | None = None
    resource_id: text(48) | None = Field(
        default=None, description="jobs of this dataset, checkpoint or ranking"
    )


class WorkerView(View):
    """A worker process. `alive` is false where it has been silent for longer than a lease."""

    name: str
    queues: list[str]
    alive: bool
    details: dict[str, Any]
    started_at: datetime
    seen_at: datetime


class EventView(BaseModel):
    """The data of one server-sent event."""

    kind: str
    at: datetime
    data: dict[str, Any]
