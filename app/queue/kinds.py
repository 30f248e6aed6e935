"""The kinds of jobs: where each runs, what it works for, and how it differs once it has children. One entry for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy.orm import Session

from app.db.tables import (
    Checkpoint,
    Dataset,
    Job,
    Pretraining,
    PseudoLabelling,
    Ranking,
    Search,
    Study,
    Verification,
)
from app.db.work import Work
from app.errors import Problem
from app.queue import part_rules, ranking_rules, search_rules
from app.queue.states import JobKind, JobState

Row = Dataset | Checkpoint | Work

# What waits where. Whoever asks for short work looks at the page meanwhile: it shares a queue with nothing that lasts.
QUEUES = {
    "cpu": "short work: reading what was sent, putting in order, deciding",
    "gpu": "extraction and training, for a GPU where there is one",
    "long": "what may last or hang on a CPU: fetching from elsewhere, searching regions",
}
GPU = "gpu"
LONG = "long"
# how a worker tells the processes of its pool which of them it takes from
QUEUES_VARIABLE = "DETRANK_OF_QUEUES"


class Children(NamedTuple):
    """What a parent's row says about its children of one kind.

    waiting: the parent's stage while it waits for them.
    asked: its stage when it is asked again after they have ended.
    unit: what its progress counts, such as `candidates`; None where they do not count.
    """

    waiting: str
    asked: str
    unit: str | None


@dataclass(frozen=True)
class Kind:
    """How jobs of a kind differ.

    queue: the queue whose workers take such jobs, of QUEUES; one job may be added to another (`tree.add`).
    table: the table of the row that the job works for.
    time_limit: the name of the setting that limits an attempt.
    fail_fast: whether the job stops, and ends as the child did, when a child fails or is cancelled.
    children: the kinds of its children, in the order in which they are looked at.
    asked: the stage of a job that is asked before it has children.
    is_asked: words for a refused retry that say what the job is doing, such as "being put in order".
    verdict: gives the state and error in which the job ends after its last child without being asked; None: it is asked.
    give_up: gives the children to cancel after one has ended, each with the reason.
    again: gives the jobs that a retry queues; without it all that failed or were cancelled.
    refuses: gives the reason why a child of that kind cannot be tried again, or None.
    goes_on_without: tells whether the job no longer waits for children of that kind.
    """

    queue: str
    table: type[Row]
    time_limit: str = "job_time_limit_s"
    fail_fast: bool = False
    children: Mapping[JobKind, Children] = field(default_factory=dict)
    asked: str | None = None
    is_asked: str = "being worked on"
    verdict: Callable[[Session, Job], tuple[JobState, Problem | None] | None] | None = None
    give_up: Callable[[Session, Job], Sequence[tuple[Job, Problem]]] | None = None
    again: Callable[[Session, Job], list[Job]] | None = None
    refuses: Callable[[Session, Job, JobKind], str | None] | None = None
    goes_on_without: Callable[[Session, Job, JobKind], bool] | None = None


KINDS: dict[JobKind, Kind] = {
    JobKind.INGEST: Kind("cpu", Dataset, time_limit="intake_time_limit_s"),
    JobKind.INSPECT: Kind("cpu", Checkpoint, time_limit="intake_time_limit_s"),
    JobKind.SHARD: Kind("gpu", Ranking),
    JobKind.SCORE: Kind(
        "gpu", Ranking, fail_fast=True, children={JobKind.SHARD: Children("reading", "scoring", None)}
    ),
    JobKind.VERIFY: Kind("gpu", Verification, time_limit="verify_time_limit_s"),
    JobKind.RANK: Kind(
        "cpu",
        Ranking,
        children={
            JobKind.SCORE: Children("scoring", "ranking", "candidates"),
            JobKind.VERIFY: Children("verifying", "concluding", "verifications"),
        },
        asked="ranking",
        is_asked="being put in order",
        verdict=ranking_rules.verdict,
        give_up=ranking_rules.beyond_budget,
    ),
    JobKind.SEARCH: Kind(
        "cpu",
        Search,
        children={
            JobKind.RANK: Children("ranking", "deciding", None),
            JobKind.VERIFY: Children("training", "deciding", "verifications"),
        },
        asked="deciding",
        is_asked="being decided on",
        verdict=search_rules.verdict,
        again=search_rules.again,
        refuses=search_rules.refuses,
        goes_on_without=search_rules.goes_on_without,
    ),
    JobKind.STUDY: Kind(
        "cpu",
        Study,
        children={
            JobKind.RANK: Children("working", "concluding", "parts"),
            JobKind.VERIFY: Children("working", "concluding", "parts"),
        },
        asked="concluding",
        is_asked="being concluded",
    ),
    JobKind.PROPOSE: Kind(LONG, Pretraining),
    JobKind.LEARN: Kind("gpu", Pretraining, time_limit="verify_time_limit_s"),
    JobKind.PRETRAIN: Kind(
        "cpu",
        Pretraining,
        children={
            JobKind.PROPOSE: Children("proposing", "preparing", "parts"),
            JobKind.LEARN: Children("training", "deciding", None),
            JobKind.VERIFY: Children("fine-tuning", "concluding", "verifications"),
        },
        asked="preparing",
        is_asked="being decided on",
        verdict=part_rules.ends_with(JobKind.PROPOSE, JobKind.LEARN),
    ),
    JobKind.LOOK: Kind("gpu", PseudoLabelling),
    JobKind.TEACH: Kind("gpu", PseudoLabelling, time_limit="verify_time_limit_s"),
    JobKind.PSEUDO_LABEL: Kind(
        "cpu",
        PseudoLabelling,
        children={
            JobKind.LOOK: Children("looking", "preparing", "parts"),
            JobKind.TEACH: Children("teaching", "concluding", None),
        },
        asked="preparing",
        is_asked="being concluded",
        verdict=part_rules.ends_with(JobKind.LOOK, JobKind.TEACH),
    ),
}


def kind_of(job: Job) -> Kind:
    return KINDS[JobKind(job.kind)]
