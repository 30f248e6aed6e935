"""Answers about jobs, workers and events."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.queue.states import JobKind
from app.schemas.common import JobStateName, Line, OneOf, PageQuery, View

JobKindName = Annotated[str, OneOf(tuple(JobKind))]


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
    checkpoint_id: str | None = Field(description="the candidate that a score, shard or verify job works for")
    shard: int | None = Field(description="which part of its images a shard job reads, from 0")
    shards: int | None = Field(description="in how many parts the candidate is read; null: as a whole")
    queue: str
    priority: int = Field(description="within the workspace, larger first")
    attempt: int
    max_attempts: int
    worker: str | None
    progress: Progress
    error: Mapping[str, Any] | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobQuery(PageQuery):
    state: JobStateName | None = None
    kind: JobKindName | None = None
    resource_id: Annotated[str, Line(48)] | None = Field(
        default=None, description="jobs of this dataset, checkpoint, ranking, verification, search or study"
    )


class HeldModel(BaseModel):
    """A detector that a worker keeps loaded between jobs."""

    architecture: str
    weights_sha256: str
    device: str
    size_bytes: int
    pid: int


class WorkerDetails(BaseModel):
    """The machine a worker computes on; null where nobody knows, or not yet."""

    model_config = ConfigDict(extra="allow")
    host: str | None = None
    pid: int | None = None
    concurrency: int | None = Field(default=None, description="jobs it works on at once")
    device: str | None = Field(default=None, examples=["cpu", "cuda"])
    device_name: str | None = Field(default=None, examples=["NVIDIA H200"])
    memory_total_bytes: int | None = Field(default=None, description="of the device: its own, or main memory")
    memory_free_bytes: int | None = Field(default=None, description="of a GPU: after its last job")
    precisions: list[str] | None = Field(
        default=None, description="number formats that cost no more time than float32"
    )
    torch: str | None = Field(default=None, description="version")
    models: list[HeldModel] = Field(default=[], description="kept loaded, used last first")
    problem: str | None = Field(default=None, description="why the device could not be asked")


class WorkerView(View):
    """A worker process. `alive` is false where it has been silent for longer than a lease."""

    name: str
    queues: list[str]
    alive: bool
    details: WorkerDetails
    jobs: list[str] = Field(description="of your workspace, in its hands now")
    started_at: datetime
    seen_at: datetime
