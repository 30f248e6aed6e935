"""One Celery task per kind of job: claim, run, finish. The message is only a job's id."""

import contextlib
import errno
import importlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import structlog
from celery import shared_task, signals
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import tracing
from app.db.engine import Database
from app.errors import DetrankError, Problem, StorageFull, TransientFailure
from app.queue import leases, turns
from app.queue.kinds import GPU, QUEUES_VARIABLE
from app.queue.leases import Claim, ClaimedJob, LeaseLost
from app.queue.states import JobKind
from app.settings import Settings
from worker import heap, process
from worker.attempt import EXIT_ABANDONED, Attempt, Cancelled
from worker.declaration import tell_models

T = TypeVar("T")
Handler = Callable[[Attempt, ClaimedJob], Callable[[Session], None] | None]

# Looked up by name in the pool's child: the parent never loads the science.
HANDLERS: dict[JobKind, str] = {
    JobKind.INGEST: "worker.handlers.intake.ingest",
    JobKind.INSPECT: "worker.handlers.intake.inspect",
    JobKind.SHARD: "worker.handlers.ranking.shard",
    JobKind.SCORE: "worker.handlers.ranking.score",
    JobKind.RANK: "worker.handlers.ranking.rank",
    JobKind.VERIFY: "worker.handlers.verification.verify",
    JobKind.SEARCH: "worker.handlers.search.search",
    JobKind.STUDY: "worker.handlers.study.study",
    JobKind.PROPOSE: "worker.handlers.pretraining.propose",
    JobKind.LEARN: "worker.handlers.pretraining.learn",
    JobKind.PRETRAIN: "worker.handlers.pretraining.pretrain",
    JobKind.LOOK: "worker.handlers.pseudo_labelling.look",
    JobKind.TEACH: "worker.handlers.pseudo_labelling.teach",
    JobKind.PSEUDO_LABEL: "worker.handlers.pseudo_labelling.pseudo_label",
}
DATABASE_AWAY_S = 60.0

log = logging.getLogger(__name__)


def run(job_id: str) -> None:
    """Do the job if it is still to be done; whatever happens is on its row, never in Celery."""
    process.heed_signals()
    here = process.current()
    claim = _insist(lambda: _claim(here.database, here.settings, job_id, here.name))
    if claim is None:
        return
    with (
        heap.at_work(),
        structlog.contextvars.bound_contextvars(
            job_id=job_id, kind=claim.job.kind.value, attempt=claim.job.attempt
        ),
        Attempt(claim, here.database, here.settings, here.store) as attempt,
        here.working_on(attempt),
        traced(claim),
    ):
        log.info("works on %s", claim.job.resource_id)
        work_on(attempt, claim)
    tell_models(here.database, here.name)


def traced(claim: Claim) -> AbstractContextManager[tracing.Span]:
    """The attempt as a piece of the trace of whoever added the job."""
    about: tracing.Attributes = {"detrank.job_id": claim.job.id, "detrank.attempt": claim.job.attempt}
    return tracing.span(f"job {claim.job.kind.value}", claim.job.traceparent, **about)


def _task(kind: JobKind) -> Any:
    def task(job_id: str) -> None:
        run(job_id)

    return shared_task(name=f"detrank.{kind.value}")(task)


TASKS: dict[JobKind, Any] = {kind: _task(kind) for kind in JobKind}


def work_on(attempt: Attempt, claim: Claim) -> None:
    """Run the handler and write how it ended: succeeded, cancelled, failed, or queued for another attempt."""
    database = attempt.database
    try:
        write = _handler(claim.job.kind)(attempt, claim.job)
        _insist(attempt.flush)
        _insist(lambda: _in_transaction(database, leases.finish, claim, write))
        log.info("%s succeeded", claim.job.id)
    except LeaseLost:
        log.warning("%s: the lease is lost; what was computed is thrown away", claim.job.id)
    except Cancelled:
        _end(database, claim, leases.cancelled)
    except BaseException as failure:  # a library may even raise SystemExit; it must not reach the pool
        _failed(attempt, claim, failure)


def _failed(attempt: Attempt, claim: Claim, failure: BaseException) -> None:
    database, settings = attempt.database, attempt.settings
    if is_full_disk(failure):
        log.warning("%s: the disk is full; it waits for room", claim.job.id)
        room = StorageFull(
            "the worker's disk is full: the job goes on by itself once there is room"
        ).to_dict()
        _end(database, claim, leases.release, error=room, delay_s=settings.room_s)
    elif isinstance(failure, DetrankError):
        retry_s = settings.retry_s if failure.retryable else None
        _end(database, claim, leases.fail, failure.to_dict(), retry_s=retry_s)
    else:
        log.error("%s: attempt %d failed", claim.job.id, claim.job.attempt, exc_info=failure)
        _end(database, claim, leases.fail, problem_of(failure), retry_s=settings.retry_s)
        if is_sticky(failure):
            os._exit(EXIT_ABANDONED)


def is_full_disk(failure: BaseException) -> bool:
    """Whether no room on a disk is what it came from, whatever was made of that on the way."""
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, StorageFull) or getattr(seen, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(seen) or "disk is full" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def problem_of(failure: BaseException) -> Problem:
    """An unexpected failure as a problem document; it may pass, so the job is tried again."""
    return TransientFailure(f"{type(failure).__name__}: {failure}"[:2000]).to_dict()


def is_sticky(failure: BaseException) -> bool:
    """Whether the GPU context of this process is broken for good: every later call would fail too."""
    names = {kind.__name__ for kind in type(failure).__mro__}
    return "OutOfMemoryError" not in names and ("AcceleratorError" in names or "CUDA error" in str(failure))


def _handler(kind: JobKind) -> Handler:
    return importlib.import_module(HANDLERS[kind]).run


@signals.worker_process_init.connect
def prepare_child(**_: Any) -> None:
    """In the pool's child, which is spawned and imports this file alone, before its first job."""
    process.ignore_hand_back()
    if os.environ.get(QUEUES_VARIABLE) == GPU:
        # every job of this queue needs the science, so importing it before the first one costs nobody anything;
        # where it fails the first job says why
        with contextlib.suppress(Exception):
            _handler(JobKind.SCORE)


@signals.worker_process_shutdown.connect
def _send_spans(**_: Any) -> None:
    """In the pool's child, which ends by os._exit: what would send them at the exit of an interpreter never runs."""
    tracing.flush()


def _claim(database: Database, settings: Settings, job_id: str, worker: str) -> Claim | None:
    with database.unit_of_work() as session:
        return turns.answer(session, job_id, worker, lease_s=settings.lease_s)


def _in_transaction(database: Database, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with database.unit_of_work() as session:
        return action(session, *arguments, **options)


def _end(
    database: Database, claim: Claim, action: Callable[..., Any], *arguments: Any, **options: Any
) -> None:
    try:
        _insist(lambda: _in_transaction(database, action, claim, *arguments, **options))
    except LeaseLost:
        log.warning("%s: the lease is lost; somebody else says how it ended", claim.job.id)


def _insist(action: Callable[[], T]) -> T:
    """Try a transaction again while the database is away, for DATABASE_AWAY_S: hours of work may hang on it."""
    give_up = time.monotonic() + DATABASE_AWAY_S
    pause = 0.1
    while True:
        try:
            return action()
        except DBAPIError as failure:
            if not _is_passing(failure) or time.monotonic() > give_up:
                raise
            log.warning("the database does not answer, trying again: %s", failure.orig)
            time.sleep(pause)
            pause = min(2.0, pause * 2)


def _is_passing(failure: DBAPIError) -> bool:
    return failure.connection_invalidated or type(failure).__name__ in ("OperationalError", "InterfaceError")
