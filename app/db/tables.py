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
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates

from app.db.headline import headline
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
    plain: Mapped[dict[str, Any] | None]  # of a fine-tuned one: what its own library needs beside the weights
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
    result: Mapped[dict[str, Any] | None]  # order, left_out, warnings, verified, ...: written by the rank job
    plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    map_plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # scores against mAP
    error: Mapped[dict[str, Any] | None]
    rank_job_id: Mapped[str | None] = mapped_column(Id)
    search_id: Mapped[str | None] = mapped_column(ForeignKey("search.id"), index=True)  # whose part it is
    study_id: Mapped[str | None] = mapped_column(ForeignKey("study.id"), index=True)
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


class Shard(Base):
    """A part of a candidate's images that a `shard` job of its own reads. A candidate without any is read as a whole."""

    __tablename__ = "shard"
    ranking_id: Mapped[str] = mapped_column(ForeignKey("ranking.id"), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), primary_key=True, index=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 0
    job_id: Mapped[str] = mapped_column(Id)


class FeatureFile(Base):
    """Features, statistics or a shard's part of them in storage, for any host; forgotten when long unused.

    `key` is a digest of all that the content depends on, so whoever computes the same finds it.
    """

    __tablename__ = "feature_file"
    key: Mapped[str] = mapped_column(Sha256, primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blob.sha256"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    used_at: Mapped[datetime] = mapped_column(index=True)


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
    details: Mapped[dict[str, Any] | None]  # notes, null, z, interval, zero_point, gain, gain_interval, dimensions
    replicates: Mapped[bytes | None]  # of the interval, little-endian float64: what candidates are compared by
    gain_replicates: Mapped[bytes | None]  # the same of the gain's interval


class Subset(Base):
    """The training images (and with k shots the boxes) that verifications on a dataset see, drawn once and kept.

    The row is there from the first request that names it; the first job that needs it fills it in, and whoever comes later
    (another candidate, attempt or process) reads the same lists.
    """

    __tablename__ = "subset"
    __table_args__ = (UniqueConstraint("dataset_id", "key"), Index("ix_subset_listing", "workspace_id", "id"))
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"))
    key: Mapped[str] = mapped_column(String(100))  # kind, value, seed and split in one word
    kind: Mapped[str] = mapped_column(String(16))  # all, fraction or shots
    value: Mapped[float | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    split: Mapped[str] = mapped_column(String(16))
    images: Mapped[int | None]  # how many; None until it has been drawn
    image_ids: Mapped[list[Any] | None]
    annotation_ids: Mapped[list[Any] | None]  # None: all boxes of its images
    coverage: Mapped[dict[str, Any] | None]  # objects by category, absent ones with 0
    created_at: Mapped[datetime]
    drawn_at: Mapped[datetime | None]


class Verification(Base):
    """Fine-tuning one checkpoint on a dataset by a recipe, to know its mAP. Alone, or a part of at most one owner."""

    __tablename__ = "verification"
    __table_args__ = (
        CheckConstraint(
            "(ranking_id IS NULL OR search_id IS NULL) AND (ranking_id IS NULL OR study_id IS NULL) "
            "AND (search_id IS NULL OR study_id IS NULL)",
            name="one_owner",
        ),
        Index("ix_verification_listing", "workspace_id", "id"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    subset_id: Mapped[str] = mapped_column(ForeignKey("subset.id"), index=True)
    ranking_id: Mapped[str | None] = mapped_column(ForeignKey("ranking.id"), index=True)
    search_id: Mapped[str | None] = mapped_column(ForeignKey("search.id"), index=True)
    study_id: Mapped[str | None] = mapped_column(ForeignKey("study.id"), index=True)
    position: Mapped[int] = mapped_column(default=0)  # among those of its owner
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(24))
    request: Mapped[dict[str, Any]]  # normalised: every default filled in
    terms: Mapped[str] = mapped_column(
        Sha256
    )  # equal where only checkpoint and seed differ: what may be compared
    stop_at: Mapped[
        dict[str, Any] | None
    ]  # {"iterations": n} or {"seconds": s}: pause there, to be continued
    plan: Mapped[dict[str, Any] | None]  # as resolved for this architecture and number of images
    progress: Mapped[dict[str, Any] | None]  # as last told: done, total, unit, fraction, eta_s, message
    curves: Mapped[list[Any] | None]  # all points, once it has succeeded; until then they are its `curve` events
    result: Mapped[dict[str, Any] | None]  # val, test, best, iterations, finished, warnings
    map: Mapped[float | None]  # these three follow `result`: for lists, which need not read all of it
    ap50: Mapped[float | None]
    split: Mapped[str | None] = mapped_column(String(8))
    pictures: Mapped[list[Any] | None]  # [{"sha256", "file_name", ...}]
    plots: Mapped[list[Any] | None]  # [{"sha256", "file_name", ...}]
    state_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # to go on from, on any host
    state_iteration: Mapped[int | None]
    trained_checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    seconds: Mapped[float | None]  # of training and evaluation, over all attempts that counted
    error: Mapped[dict[str, Any] | None]
    job_id: Mapped[str | None] = mapped_column(Id)
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)


    @validates("result")
    def _show(self, _: str, result: dict[str, Any] | None) -> dict[str, Any] | None:
        self.map, self.ap50, self.split = headline(result)
        return result


class Search(Base):
    """A budget spent on finding the best of many checkpoints: a ranking gives the order, verifications are its parts."""

    __tablename__ = "search"
    __table_args__ = (Index("ix_search_listing", "workspace_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(24))
    request: Mapped[dict[str, Any]]  # normalised: every default filled in
    rungs: Mapped[list[Any] | None]  # what was decided and spent so far, in order
    result: Mapped[dict[str, Any] | None]
    plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    error: Mapped[dict[str, Any] | None]
    job_id: Mapped[str | None] = mapped_column(Id)  # the one that decides the next rung
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)


class Study(Base):
    """Candidates x datasets, ranked and verified: a ranking for each dataset is its part."""

    __tablename__ = "study"
    __table_args__ = (Index("ix_study_listing", "workspace_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(24))
    request: Mapped[dict[str, Any]]  # normalised: every default filled in
    result: Mapped[dict[str, Any] | None]  # correlations of every metric and baseline
    files: Mapped[list[Any] | None]  # report, tables and plots: [{"sha256", "file_name", "media_type"}]
    error: Mapped[dict[str, Any] | None]
    job_id: Mapped[str | None] = mapped_column(Id)  # the one that writes the report
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)


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
    resource_id: Mapped[str] = mapped_column(Id)  # the dataset, checkpoint, ranking, ... it works for
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
    """What happened, for the event streams of jobs, rankings, verifications, searches and studies.

    `seq` is taken from the stream's own row (`event_seq`) under its lock, so numbers become visible in order and a
    reader that asks for "after n" never misses one that commits late.
    """

    __tablename__ = "event"
    stream_id: Mapped[str] = mapped_column(Id, primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))  # state, progress, score, curve, log
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
