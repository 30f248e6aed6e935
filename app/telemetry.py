"""Prometheus names in one place. No ids in labels."""

from datetime import datetime

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Gauge,
    Histogram,
    generate_latest,
)
from sqlalchemy import func, select

from app.db.engine import Database, database_now
from app.db.tables import Job, Outbox, WorkerRecord
from app.queue.kinds import QUEUES
from app.queue.states import ACTIVE, JobState

MEDIA_TYPE = CONTENT_TYPE_LATEST
_UNENDED = [JobState.QUEUED.value, *(state.value for state in ACTIVE)]
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)

HTTP_SECONDS = Histogram(
    "detrank_http_request_seconds", "Time to answer", ["method", "route", "status"], buckets=_BUCKETS
)


def exposition(database: Database) -> bytes:
    """This process's metrics, and the queue's as the database has it now."""
    registry = CollectorRegistry()
    jobs = Gauge("detrank_jobs", "Jobs by kind and state", ["kind", "state"], registry=registry)
    oldest = Gauge(
        "detrank_queue_oldest_seconds", "Age of the oldest queued job", ["queue"], registry=registry
    )
    # whoever scales workers goes by it
    depth = Gauge("detrank_queue_jobs", "Queued and running jobs", ["queue"], registry=registry)
    lag = Gauge("detrank_outbox_lag_seconds", "How long the oldest bell has been due", registry=registry)
    seen = Gauge(
        "detrank_worker_seen_seconds", "Time since the worker heard of last was heard of", registry=registry
    )
    with database.reading() as session:
        now = database_now(session)
        for kind, state, count in session.execute(
            select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
        ):
            jobs.labels(kind, state).set(count)
        waiting = (
            select(Job.queue, func.min(Job.created_at))
            .where(Job.state == JobState.QUEUED.value)
            .group_by(Job.queue)
        )
        for queue, since in session.execute(waiting):
            oldest.labels(queue).set(_age(now, since))
        for queue in QUEUES:
            depth.labels(queue).set(0)
        unended = select(Job.queue, func.count()).where(Job.state.in_(_UNENDED)).group_by(Job.queue)
        for queue, count in session.execute(unended):
            depth.labels(queue).set(count)
        lag.set(_age(now, session.scalar(select(func.min(Outbox.not_before)))))
        latest = session.scalar(select(func.max(WorkerRecord.seen_at)))
        seen.set(_age(now, latest) if latest is not None else float("nan"))
    return generate_latest(REGISTRY) + generate_latest(registry)


def _age(now: datetime, since: datetime | None) -> float:
    return max(0.0, (now - since).total_seconds()) if since is not None else 0.0
