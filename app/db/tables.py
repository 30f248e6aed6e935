"""All records. Foreign keys refuse to orphan; `workspace_id` is on every row that a caller can name."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, validates

from app.db import documents
from app.db.access_tables import ApiKey, AuditEntry, RateCount, Workspace
from app.db.base import STORED_FILES, Base, BigId, Id, Sha256, listing_indexes
from app.db.headline import headline
from app.db.types import Json
from app.db.webhook_tables import Delivery, Webhook
from app.db.work import Work
from app.errors import Problem

__all__ = ["ApiKey", "AuditEntry", "Base", "Delivery", "RateCount", "Webhook", "Workspace"]


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
    __table_args__ = (*listing_indexes("dataset", "state", "supervision"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    request: Mapped[dict[str, Any]]  # format, seed, val_fraction, ... as asked
    source_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    source_path: Mapped[str | None] = mapped_column(Text)  # embedded mode only
    stays_at: Mapped[str | None] = mapped_column(Text)  # URL of a source whose pictures are not stored
    format: Mapped[str | None] = mapped_column(String(40))
    supervision: Mapped[str | None] = mapped_column(String(16))
    digest: Mapped[str | None] = mapped_column(Sha256)
    archive_sha256: Mapped[str | None] = mapped_column(
        ForeignKey("blob.sha256")
    )  # zip, stored: the canonical form, or where the pictures stay elsewhere what was pinned of them
    summary: Mapped[documents.DatasetSummary | None] = mapped_column(Json)
    report: Mapped[dict[str, Any] | None]
    previews: Mapped[list[documents.Preview] | None] = mapped_column(Json, info=STORED_FILES)
    lineage: Mapped[documents.DatasetLineage | None] = mapped_column(Json)  # of one with pseudo boxes
    error: Mapped[Problem | None] = mapped_column(Json)
    job_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)


class Checkpoint(Base):
    """Pretrained weights with the architecture that holds them."""

    __tablename__ = "checkpoint"
    __table_args__ = (*listing_indexes("checkpoint", "state", "kind", "architecture"),)
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
    manifest: Mapped[documents.Manifest | None] = mapped_column(Json)
    weights_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    # of a fine-tuned one: what its own library needs beside the weights
    plain: Mapped[documents.PlainForm | None] = mapped_column(Json)
    error: Mapped[Problem | None] = mapped_column(Json)
    job_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)


class Ranking(Work, Base):
    """The request to order candidates for a dataset, and its result."""

    __tablename__ = "ranking"
    __table_args__ = (*listing_indexes("ranking", "state", "dataset_id"),)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    result: Mapped[documents.RankingResult | None] = mapped_column(Json)
    plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))
    map_plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # scores against mAP
    cost_plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # against milliseconds
    search_id: Mapped[str | None] = mapped_column(ForeignKey("search.id"), index=True)  # whose part it is
    study_id: Mapped[str | None] = mapped_column(ForeignKey("study.id"), index=True)
    belief: Mapped[documents.Belief | None] = mapped_column(Json)
    # what of the workspace the belief was made from, as app/queue/beliefs.py marks it; another mark: it is made anew
    believed_from: Mapped[str | None] = mapped_column(String(100))


class Candidate(Base):
    """A checkpoint inside a ranking."""

    __tablename__ = "candidate"
    ranking_id: Mapped[str] = mapped_column(ForeignKey("ranking.id"), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), primary_key=True, index=True)
    position: Mapped[int]  # as in the request
    state: Mapped[str] = mapped_column(String(16))
    rank: Mapped[int | None]
    job_id: Mapped[str] = mapped_column(Id)
    cost: Mapped[documents.Cost | None] = mapped_column(Json)
    timings: Mapped[dict[str, Any] | None]  # seconds by step
    warnings: Mapped[list[Any] | None]
    error: Mapped[Problem | None] = mapped_column(Json)
    training_key: Mapped[str | None] = mapped_column(
        Sha256, index=True
    )  # of `cost`: the MeasuredStep it asks for

    @validates("cost")
    def _asks_for(self, _: str, cost: documents.Cost | None) -> documents.Cost | None:
        training = cost.get("training") if cost is not None else None
        self.training_key = training["key"] if training is not None else None
        return cost


class MeasuredStep(Base):
    """What a step of a training costs on a device, measured once for all that train alike (app/queue/training_costs.py).

    It is of the machine and of an architecture, of nobody's data: no workspace owns it.
    """

    __tablename__ = "measured_step"
    key: Mapped[str] = mapped_column(Sha256, primary_key=True)
    step: Mapped[documents.StepCost] = mapped_column(Json)
    measured_at: Mapped[datetime]


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
    details: Mapped[documents.ScoreDetails | None] = mapped_column(Json)
    replicates: Mapped[
        bytes | None
    ]  # of the interval, little-endian float64: what candidates are compared by
    gain_replicates: Mapped[bytes | None]  # the same of the gain's interval


class Subset(Base):
    """The training images (and with k shots the boxes) that verifications on a dataset see, drawn once and kept.

    The row is there from the first request that names it; the first job that needs it fills it in, and whoever comes later
    (another candidate, attempt or process) reads the same lists.
    """

    __tablename__ = "subset"
    __table_args__ = (UniqueConstraint("dataset_id", "key"), *listing_indexes("subset", "dataset_id"))
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"))
    key: Mapped[str] = mapped_column(String(100))  # kind, value, seed and split in one word
    kind: Mapped[str] = mapped_column(String(16))  # all, fraction or shots
    value: Mapped[float | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    split: Mapped[str] = mapped_column(String(16))
    images: Mapped[int | None]  # how many; None until it has been drawn
    image_ids: Mapped[list[int] | None] = mapped_column(Json)
    # None: all boxes of its images
    annotation_ids: Mapped[list[int] | None] = mapped_column(Json)
    # objects by category, absent ones with 0
    coverage: Mapped[dict[str, int] | None] = mapped_column(Json)
    created_at: Mapped[datetime]
    drawn_at: Mapped[datetime | None]


class Verification(Work, Base):
    """Fine-tuning one checkpoint on a dataset by a recipe, to know its mAP. Alone, or a part of at most one owner."""

    __tablename__ = "verification"
    __table_args__ = (
        CheckConstraint(
            "(ranking_id IS NULL OR search_id IS NULL) AND (ranking_id IS NULL OR study_id IS NULL) "
            "AND (search_id IS NULL OR study_id IS NULL)",
            name="one_owner",
        ),
        *listing_indexes(
            "verification", "state", "dataset_id", "checkpoint_id", "ranking_id", "search_id", "study_id"
        ),
    )
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    subset_id: Mapped[str] = mapped_column(ForeignKey("subset.id"), index=True)
    ranking_id: Mapped[str | None] = mapped_column(ForeignKey("ranking.id"), index=True)
    search_id: Mapped[str | None] = mapped_column(ForeignKey("search.id"), index=True)
    study_id: Mapped[str | None] = mapped_column(ForeignKey("study.id"), index=True)
    position: Mapped[int] = mapped_column(default=0)  # among those of its owner
    terms: Mapped[str] = mapped_column(
        Sha256
    )  # equal where only checkpoint and seed differ: what may be compared
    # pause there, to be continued
    stop_at: Mapped[documents.StopAt | None] = mapped_column(Json)
    plan: Mapped[dict[str, Any] | None]  # as resolved for this architecture and number of images
    progress: Mapped[documents.Progress | None] = mapped_column(Json)  # as last told
    # all points, once it has succeeded; until then they are its `curve` events
    curves: Mapped[list[Any] | None]
    result: Mapped[documents.VerificationResult | None] = mapped_column(Json)
    map: Mapped[float | None]  # these three follow `result`: for lists, which need not read all of it
    ap50: Mapped[float | None]
    split: Mapped[str | None] = mapped_column(String(8))
    # of what it finds, with documents.PREDICTIONS
    pictures: Mapped[list[documents.StoredFile] | None] = mapped_column(Json, info=STORED_FILES)
    plots: Mapped[list[documents.StoredFile] | None] = mapped_column(Json, info=STORED_FILES)
    state_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # to go on from, on any host
    state_iteration: Mapped[int | None]
    trained_checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    seconds: Mapped[float | None]  # of training and evaluation, over all attempts that counted

    @validates("result")
    def _show(
        self, _: str, result: documents.VerificationResult | None
    ) -> documents.VerificationResult | None:
        self.map, self.ap50, self.split = headline(result)
        return result


class Search(Work, Base):
    """A budget spent on finding the best of many checkpoints: a ranking gives the order, verifications are its parts."""

    __tablename__ = "search"
    __table_args__ = (*listing_indexes("search", "state", "dataset_id"),)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    # what was decided and spent so far, in order
    rounds: Mapped[list[documents.Round] | None] = mapped_column("rungs", Json)
    result: Mapped[documents.SearchResult | None] = mapped_column(Json)
    plot_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))


class Study(Work, Base):
    """Candidates x datasets, ranked and verified: a ranking for each dataset is its part."""

    __tablename__ = "study"
    __table_args__ = (*listing_indexes("study", "state"),)
    result: Mapped[documents.StudyResult | None] = mapped_column(Json)
    # report, tables and plots
    files: Mapped[list[documents.StoredFile] | None] = mapped_column(Json, info=STORED_FILES)


class Pretraining(Work, Base):
    """A detector pretrained on pictures without labels, and whether that was worth it: regions, training, comparisons."""

    __tablename__ = "pretraining"
    __table_args__ = (*listing_indexes("pretraining", "state", "dataset_id"),)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    # what it starts from; of a fresh detector known once its training has begun
    start_checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    encoder_checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    plan: Mapped[dict[str, Any] | None]  # as resolved for this architecture and number of pictures
    progress: Mapped[documents.Progress | None] = mapped_column(Json)  # of its training, as of a verification
    curves: Mapped[list[Any] | None]  # all points, once trained; until then they are its `curve` events
    result: Mapped[documents.PretrainingResult | None] = mapped_column(Json)
    pictures: Mapped[list[documents.StoredFile] | None] = mapped_column(Json, info=STORED_FILES)
    plots: Mapped[list[documents.StoredFile] | None] = mapped_column(Json, info=STORED_FILES)
    state_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # to go on from, on any host
    state_iteration: Mapped[int | None]
    trained_checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    seconds: Mapped[float | None]  # of training


class PseudoLabelling(Work, Base):
    """What a teacher says of the pictures of a dataset, as a dataset of its own, and what that is worth."""

    __tablename__ = "pseudo_labelling"
    __table_args__ = (*listing_indexes("pseudo_labelling", "state", "dataset_id"),)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), index=True)
    # the teacher, or the body that it reads pictures with
    checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    # with true boxes of some of the pictures: measured on, never shown to the teacher
    truth_dataset_id: Mapped[str | None] = mapped_column(ForeignKey("dataset.id"), index=True)
    made_dataset_id: Mapped[str | None] = mapped_column(ForeignKey("dataset.id"), index=True)
    # a detector that learned on the way
    trained_checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"), index=True)
    progress: Mapped[documents.Progress | None] = mapped_column(Json)  # as last told
    curves: Mapped[list[Any] | None]  # of a teacher that learns, once it has learned
    result: Mapped[documents.PseudoLabellingResult | None] = mapped_column(Json)
    pictures: Mapped[list[documents.StoredFile] | None] = mapped_column(Json, info=STORED_FILES)
    plots: Mapped[list[documents.StoredFile] | None] = mapped_column(Json, info=STORED_FILES)
    # boxes and pictures for a person to look at, with what was decided
    review: Mapped[documents.Review | None] = mapped_column(Json)
    state_sha256: Mapped[str | None] = mapped_column(ForeignKey("blob.sha256"))  # to go on from, on any host
    state_iteration: Mapped[int | None]
    seconds: Mapped[float | None]  # of the teacher


class Job(Base):
    """One unit of queued work for one resource: the truth that the broker only rings a bell about."""

    __tablename__ = "job"
    __table_args__ = (
        *listing_indexes("job", "state", "kind", "resource_id"),
        Index("ix_job_sweep", "state", "lease_until"),
        Index("ix_job_resource", "resource_id"),
        # whose turn it is (app/queue/turns.py)
        Index("ix_job_turn", "queue", "state", "workspace_id", "priority", "id"),
        Index("ix_job_served", "workspace_id", "queue", "claimed_at"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id"))
    kind: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(16))
    resource_id: Mapped[str] = mapped_column(Id)  # the dataset, checkpoint, ranking, ... it works for
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"), index=True)  # never changed
    payload: Mapped[dict[str, Any]]  # ids only, e.g. {"checkpoint_id": ...} of a score job
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(24))
    priority: Mapped[int] = mapped_column(default=0, server_default="0")  # within the workspace, larger first
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
    error: Mapped[Problem | None] = mapped_column(Json)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]  # when it, or something below it, was first at work
    finished_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]  # when a worker took it last
    # seconds in the hands of workers, with what was lost there
    worked_s: Mapped[float] = mapped_column(default=0.0, server_default="0")
    traceparent: Mapped[str | None] = mapped_column(String(55))  # W3C Trace Context of what added it
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)


class Event(Base):
    """What happened, for the event streams of jobs, rankings, verifications, searches, studies, pretrainings and pseudo-labellings.

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
    rings: Mapped[int] = mapped_column("rung", default=0)  # how often it was handed to the broker


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
