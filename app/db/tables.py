"""All records. Foreign keys refuse to orphan; `workspace_id` is on every row that a caller can name."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.db.types import Json, UtcDateTime

Id = String(48)
Sha256 = String(64)
# SQLite counts upwards by itself only for INTEGER
BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[Any]: Json}  # noqa: RUF012


class Workspace(Base):
    __tablename__ = "workspace"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime]


class ApiKey(Base):
    """Only the hash is kept; `prefix` lets a person tell keys apart."""

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(20))
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Blob(Base):
    """A file in storage, named by its content."""

    __tablename__ = "blob"
    sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime]


class Upload(Base):
    """A resumable upload (tus 1.0); `sha256` is set when the last byte has arrived."""

    __tablename__ = "upload"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    length_bytes: Mapped[int] = mapped_column(BigInteger)
    offset_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    filename: Mapped[str] = mapped_column(String(255), default="")
    sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Dataset(Base):
    """A target dataset. `version` grows with every change and is the ETag."""

    __tablename__ = "dataset"
    __table_args__ = (Index("ix_dataset_listing", "workspace_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    request: Mapped[dict[str, Any]]  # format, seed, val_fraction, ... as asked
    source_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    source_path: Mapped[str | None] = mapped_column(Text)  # embedded mode only
    format: Mapped[str | None] = mapped_column(String(40))
    supervision: Mapped[str | None] = mapped_column(String(16))
    digest: Mapped[str | None] = mapped_column(Sha256)
    archive_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # the canonical form, zip, stored
    summary: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any] | None]
    previews: Mapped[list[Any] | None]  # [{"sha256", "file_name"}]
    error: Mapped[dict[str, Any] | None]
    job_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)


class Checkpoint(Base):
    """Pretrained weights with the architecture that holds them."""

    __tablename__ = "checkpoint"
    __table_args__ = (Index("ix_checkpoint_listing", "workspace_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    request: Mapped[dict[str, Any]]  # source, sha256, architecture and overrides as asked
    source_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    kind: Mapped[str | None] = mapped_column(String(16))
    architecture: Mapped[str | None] = mapped_column(String(100))
    format: Mapped[str | None] = mapped_column(String(60))
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    licence: Mapped[str | None] = mapped_column(String(200))
    provenance: Mapped[dict[str, Any] | None]
    manifest: Mapped[dict[str, Any] | None]
    weights_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    error: Mapped[dict[str, Any] | None]
    job_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)


class Ranking(Base):
    """The request to order candidates for a dataset, and its result."""

    __tablename__ = "ranking"
    __table_args__ = (Index("ix_ranking_listing", "workspace_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(24))
    request: Mapped[dict[str, Any]]  # normalised: every default filled in
    result: Mapped[dict[str, Any] | None]  # ranked_by, order, left_out, warnings, baselines: written by the rank job
    plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    error: Mapped[dict[str, Any] | None]
    rank_job_id: Mapped[str | None] = mapped_column(Id)
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)


class Candidate(Base):
    """A checkpoint inside a ranking."""

    __tablename__ = "candidate"
    ranking_id: Mapped[str] = mapped_column(ForeignKey("ranking.id"), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), primary_key=True, index=True)
    position: Mapped[int]  # as in the request
    state: Mapped[str] = mapped_column(String(16))
    rank: Mapped[int | None]
    job_id: Mapped[str] = mapped_column(Id)
    cost: Mapped[dict[str, Any] | None]  # parameters, ms_per_image, peak_memory_bytes, device
    timings: Mapped[dict[str, Any] | None]  # seconds by step
    warnings: Mapped[list[Any] | None]
    error: Mapped[dict[str, Any] | None]


class Score(Base):
    """A metric's value for one candidate at one layer; `undefined` holds the reason where there is no value."""

    __tablename__ = "score"
    __table_args__ = (CheckConstraint("(value IS NULL) <> (undefined IS NULL)", name="value_or_reason"),)
    ranking_id: Mapped[str] = mapped_column(ForeignKey("ranking.id"), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(60), primary_key=True)
    layer: Mapped[str] = mapped_column(String(60), primary_key=True)
    level: Mapped[str] = mapped_column(String(10), primary_key=True)
    value: Mapped[float | None]
    undefined: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float]
    details: Mapped[dict[str, Any] | None]  # notes, null, z, interval, dimensions
    replicates: Mapped[bytes | None]  # of the interval, little-endian float64: what candidates are compared by


class Job(Base):
    """One unit of queued work for one resource: the truth that the broker only rings a bell about."""

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_listing", "workspace_id", "id"),
        Index("ix_job_sweep", "state", "lease_until"),
        Index("ix_job_resource", "resource_id"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    kind: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(16))
    resource_id: Mapped[str] = mapped_column(Id)  # the dataset, checkpoint or ranking it works for
    payload: Mapped[dict[str, Any]]  # ids only, e.g. {"checkpoint_id": ...} of a score job
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(24))
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    token: Mapped[str | None] = mapped_column(String(36))  # who may write: changes with every claim
    worker: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int | None]
    progress_unit: Mapped[str | None] = mapped_column(String(20))
    progress_message: Mapped[str | None] = mapped_column(String(500))
    progress_eta_s: Mapped[float | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)


class Event(Base):
    """What happened, for the event streams of a job or a ranking.

    `seq` is taken from the stream's own row (`event_seq`) under its lock, so numbers become visible in order and a
    reader that asks for "after n" never misses one that commits late.
    """

    __tablename__ = "event"
    stream_id: Mapped[str] = mapped_column(Id, primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))  # state, progress, score, log
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)


class Outbox(Base):
    """A bell to ring for a queued job: written with it, rung by the relay, gone once the job is no longer queued.

    A bell that nobody answers is rung again at `not_before`, so a broker that lost its messages loses no job.
    """

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), unique=True)
    not_before: Mapped[datetime] = mapped_column(index=True)
    rung: Mapped[int] = mapped_column(default=0)  # how often it was handed to the broker


class WorkerRecord(Base):
    """A worker process that was heard of at `seen_at`."""

    __tablename__ = "worker"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    queues: Mapped[list[Any]]
    details: Mapped[dict[str, Any]]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class Idempotency(Base):
    """The answer given to an `Idempotency-Key`, written in the transaction of the change itself."""

    __tablename__ = "idempotency"
    __table_args__ = (UniqueConstraint("workspace_id", "key"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(Sha256)  # of method, path and body
    status: Mapped[int]
    location: Mapped[str | None] = mapped_column(String(200))
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)
