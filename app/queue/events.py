"""Event streams: what happened to a job, a ranking, a verification, ..., numbered from 1 without gaps."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from app.db.documents import Progress
from app.db.engine import database_now
from app.db.tables import Event, Job
from app.db.work import Work

Stream = Job | Work


def append(
    session: Session, stream: Stream, kind: str, data: Mapping[str, Any], *, now: datetime | None = None
) -> int:
    """Add an event to the stream of a row and return its number; the row's `version` grows with it.

    Taking the number locks the stream's row until the transaction ends: numbers become visible in order. Kinds:
    `state`, `progress`, `score`, `curve`, `log`.
    """
    session.flush()
    table = type(stream)
    taken = session.execute(
        update(table)
        .where(table.id == stream.id)
        .values(event_seq=table.event_seq + 1, version=table.version + 1)
        .returning(table.event_seq, table.version),
        execution_options={"synchronize_session": False},
    ).one()
    set_committed_value(stream, "event_seq", taken.event_seq)
    set_committed_value(stream, "version", taken.version)
    session.execute(
        insert(Event).values(
            stream_id=stream.id,
            seq=taken.event_seq,
            kind=kind,
            data=clean(data),
            created_at=now or database_now(session),
        )
    )
    return int(taken.event_seq)


def advance(
    session: Session,
    job: Job,
    *,
    done: int,
    total: int | None = None,
    unit: str | None = None,
    message: str | None = None,
    eta_s: float | None = None,
    now: datetime | None = None,
) -> None:
    """Record a locked job's progress and tell its stream. Progress never goes back.

    Against the same total a smaller `done` is ignored; against another total or unit, whatever would make the finished
    fraction smaller is. The message is always written: it says what the worker does now.
    """
    if _goes_forward(job, done, total, unit):
        job.progress_done, job.progress_total, job.progress_unit, job.progress_eta_s = (
            done,
            total,
            unit,
            eta_s,
        )
    job.progress_message = clean(message)[:500] if message is not None else job.progress_message
    append(session, job, "progress", progress_of(job), now=now)


def progress_of(job: Job) -> Progress:
    """A job's progress as callers see it; `fraction` is None while the total is not known."""
    fraction = min(1.0, job.progress_done / job.progress_total) if job.progress_total else None
    return {
        "done": job.progress_done,
        "total": job.progress_total,
        "unit": job.progress_unit,
        "fraction": fraction,
        "eta_s": job.progress_eta_s,
        "message": job.progress_message,
    }


def _goes_forward(job: Job, done: int, total: int | None, unit: str | None) -> bool:
    if (total, unit) == (job.progress_total, job.progress_unit):
        return done >= job.progress_done
    if not job.progress_total:
        return True
    return total is not None and total > 0 and done * job.progress_total >= job.progress_done * total


def clean(value: Any) -> Any:
    """`value` without NUL characters, which Postgres refuses in text and JSON."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
