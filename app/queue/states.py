"""The states of jobs and resources, and which may follow which."""

from enum import StrEnum


class JobState(StrEnum):
    """Also the states of rankings, candidates, verifications, searches, studies, pretrainings and pseudo-labellings, but for `waiting`.

    A job that waits for its children is shown to callers as `queued` until one of them was at work, then as `running`
    (`app/queue/jobs.py`, `shown`).
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# As callers see them. A job that waits for others is shown as they are.
SHOWN = tuple(state for state in JobState if state != "waiting")


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
    PROPOSE = "propose"
    LEARN = "learn"
    PRETRAIN = "pretrain"
    LOOK = "look"
    TEACH = "teach"
    PSEUDO_LABEL = "pseudo_label"


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
BROKEN = frozenset({JobState.FAILED, JobState.CANCELLED})
ACTIVE = frozenset({JobState.RUNNING, JobState.CANCELLING})

FOLLOWS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.WAITING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(JobState) - {JobState.RUNNING},
    JobState.WAITING: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    # a job that has ended is queued again by a retry, or to go on; the jobs above it wait again
    **dict.fromkeys(ENDED, frozenset({JobState.QUEUED, JobState.WAITING})),
}
