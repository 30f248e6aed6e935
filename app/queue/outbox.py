"""The outbox: bells for queued jobs, written in the job's own transaction and rung later by a relay.

Nothing is published inside a request. A bell stays until its job is claimed, and is rung again ever more rarely, so that a
lost message, a flushed broker or a relay killed between two steps delays a job but never loses it.
"""

from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from app.db.engine import Database, database_now
from app.db.tables import Job, Outbox
from app.errors import Unavailable

LONGEST_S = 600.0
# at once; a database takes no more values in one statement than some ten thousands
MOST_ANEW = 10_000


class Ringer(Protocol):
    """The part of a broker that the relay needs."""

    def ring(self, job_id: str, kind: str, queue: str) -> None:
        """Announce a job; raises Unavailable when the broker does not take it."""


def add(session: Session, job_id: str, *, now: datetime, delay_s: float = 0.0) -> None:
    """A bell for a queued job, to be rung `delay_s` from now; replaces the one it may have."""
    drop(session, job_id)
    session.execute(
        insert(Outbox).values(job_id=job_id, not_before=now + timedelta(seconds=delay_s), rings=0)
    )


def drop(session: Session, job_id: str) -> None:
    """Take a job's bell away: it is no longer queued."""
    session.execute(delete(Outbox).where(Outbox.job_id == job_id))


def relay_once(database: Database, broker: Ringer, *, limit: int = 100, bell_s: float = 30.0) -> int:
    """Ring up to `limit` due bells, oldest first, and return how many the broker took.

    The rows are postponed in one short transaction and the broker is spoken to after it, so a silent broker holds no lock.
    Raises Unavailable where the broker refused; the bells it did not take are due as they were, so that their age shows in
    the metrics. How long to leave such a broker alone is the relay's to say.
    """
    with database.reading() as session:
        due = session.scalar(
            select(func.count()).select_from(Outbox).where(Outbox.not_before <= database_now(session))
        )
    if not due:
        return 0
    with database.unit_of_work() as session:
        now = database_now(session)
        bells = session.execute(
            select(Outbox.id, Outbox.rings, Outbox.not_before, Outbox.job_id, Job.kind, Job.queue)
            .join(Job, Job.id == Outbox.job_id)
            .where(Outbox.not_before <= now)
            .order_by(Outbox.id)
            .limit(limit)
            .with_for_update(of=Outbox, skip_locked=True)
        ).all()
        for bell in bells:
            again = now + timedelta(seconds=min(LONGEST_S, bell_s * 2.0**bell.rings))
            session.execute(
                update(Outbox).where(Outbox.id == bell.id).values(not_before=again, rings=Outbox.rings + 1)
            )
    for taken, bell in enumerate(bells):
        try:
            broker.ring(bell.job_id, bell.kind, bell.queue)
        except Unavailable:
            _put_back(database, {left.id: left.not_before for left in bells[taken:]})
            raise
    return len(bells)


def ring_anew(database: Database) -> int:
    """Make bells due that were rung before, as if they had never been, the oldest first and at most `MOST_ANEW`; how many. For when
    a broker came back, perhaps without what it had been told. Those that another relay has in hand are left to it."""
    with database.unit_of_work() as session:
        rung = select(Outbox.id).where(Outbox.rings > 0).order_by(Outbox.id).limit(MOST_ANEW)
        ids = session.scalars(rung.with_for_update(skip_locked=True)).all()
        session.execute(
            update(Outbox).where(Outbox.id.in_(ids)).values(not_before=database_now(session), rings=0)
        )
    return len(ids)


def _put_back(database: Database, due: dict[int, datetime]) -> None:
    with database.unit_of_work() as session:
        for id, not_before in due.items():
            session.execute(
                update(Outbox)
                .where(Outbox.id == id, Outbox.rings > 0)
                .values(not_before=not_before, rings=Outbox.rings - 1)
            )
