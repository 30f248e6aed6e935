"""The states of jobs and resources, and which may follow which."""

from enum import StrEnum


class JobState(StrEnum):
    """Also the states of rankings, of their candidates, of verifications, searches and studies."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ResourceState(StrEnum):
    """Datasets and checkpoints."""

    PROCESSING = "processing"
    READY = "ready"
    INVALID = "invalid"


class JobKind(StrEnum):
    INGEST = "ingest"
    INSPECT = "inspect"
    SHARD = "shard"
    SCORE = "score"
    RANK = "rank"
    VERIFY = "verify"
    SEARCH = "search"
    STUDY = "study"


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

FOLLOWS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}

QUEUES: dict[JobKind, str] = {
    JobKind.INGEST: "cpu",
    JobKind.INSPECT: "cpu",
    JobKind.RANK: "cpu",
    JobKind.SHARD: "gpu",
    JobKind.SCORE: "gpu",
    JobKind.VERIFY: "gpu",
    JobKind.SEARCH: "cpu",
    JobKind.STUDY: "cpu",
}
