"""One Celery task per kind of job: claim, run, finish. The message is only a job's id."""

import importlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from celery import shared_task
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db.engine import Database
from app.errors import DetrankError, TransientFailure
from app.queue import leases
from app.queue.leases import Claim, JobView, LeaseLost
from app.queue.states import JobKind
from app.settings import Settings
from worker import process
from worker.declaration import tell_models
from worker.step import EXIT_ABANDONED, Cancelled, Step

T = TypeVar("T")
Handler = Callable[[Step, JobView], Callable[[Session], None] | None]

# Looked up by name in the pool's child: the parent never loads the science.
HANDLERS: dict[JobKind, str] = {kind: f"worker.handlers.{kind.value}:run" for kind in JobKind}
DATABASE_AWAY_S = 60.0

log = logging.getLogger(__name__)


@shared_task(name="detrank.ingest")
def ingest(job_id: str) -> None:
    run(job_id)


@shared_task(name="detrank.inspect")
def inspect(job_id: str) -> None:
    run(job_id)


@shared_task(name="detrank.shard")
def shard(job_id: str) -> None:
    run(job_id)


@shared_task(name="detrank.score")
def score(job_id: str) -> None:
    run(job_id)


@shared_task(name="detrank.rank")
def rank(job_id: str) -> None:
    run(job_id)


@shared_task(name="detrank.verify")
def verify(job_id: str) -> None:
    run(job_id)


@shared_task(name="detrank.search")
def search(job_id: str) -> None:
    run(job_id)


@shared_task(name="detrank.study")
def study(job_id: str) -> None:
    run(job_id)


def run(job_id: str) -> None:
    """Do the job if it is still to be done; whatever happens is on its row, never in Celery."""
    process.heed_signals()
    here = process.current()
    claim = _insist(lambda: _claim(here.database, here.settings, job_id, here.name))
    if claim is None:
        return
    with (
        structlog.contextvars.bound_contextvars(
            job_id=job_id, kind=claim.job.kind.value, attempt=claim.job.attempt
        ),
        Step(claim, here.database, here.settings, here.store) as step,
        here.working_on(step),
    ):
        log.info("works on %s", claim.job.resource_id)
        attempt(step, claim)
    tell_models(here.database, here.name)


def attempt(step: Step, claim: Claim) -> None:
    """Run the handler and write how it ended: succeeded, cancelled, failed, or queued for another attempt."""
    database, settings = step.database, step.settings
    try:
        write = _handler(claim.job.kind)(step, claim.job)
        _insist(step.flush)
        _insist(lambda: _in_transaction(database, leases.finish, claim, write))
        log.info("%s succeeded", claim.job.id)
    except LeaseLost:
        log.warning("%s: the lease is lost; what was computed is thrown away", claim.job.id)
    except Cancelled:
        _end(database, claim, leases.cancelled)
    except DetrankError as failure:
        retry_s = settings.retry_s if failure.retryable else None
        _end(database, claim, leases.fail, failure.to_dict(), retry_s=retry_s)
    except BaseException as failure:  # a library may even raise SystemExit; it must not reach the pool
        log.exception("%s: attempt %d failed", claim.job.id, claim.job.attempt)
        _end(database, claim, leases.fail, problem_of(failure), retry_s=settings.retry_s)
        if is_sticky(failure):
            os._exit(EXIT_ABANDONED)


def problem_of(failure: BaseException) -> dict[str, Any]:
    """An unexpected failure as a problem document; it may pass, so the job is tried again."""
    return TransientFailure(f"{type(failure).__name__}: {failure}"[:2000]).to_dict()


def is_sticky(failure: BaseException) -> bool:
    """Whether the GPU context of this process is broken for good: every later call would fail too."""
    names = {kind.__name__ for kind in type(failure).__mro__}
    return "OutOfMemoryError" not in names and ("AcceleratorError" in names or "CUDA error" in str(failure))


def _handler(kind: JobKind) -> Handler:
    module, name = HANDLERS[kind].split(":")
    return getattr(importlib.import_module(module), name)


def _claim(database: Database, settings: Settings, job_id: str, worker: str) -> Claim | None:
    with database.unit_of_work() as session:
        return leases.claim(session, job_id, worker, lease_s=settings.lease_s)


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
