"""Whose turn it is: a bell says that there is work in a queue, and the workspace that waited longest is served.

Workspaces of a larger priority come before the others. Inside a workspace the job of the largest priority comes first, of those
the oldest. A bell whose job somebody else took serves another job of the queue.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Row, func, or_, select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Job, Workspace
from app.queue.leases import Claim, claim
from app.queue.states import ACTIVE, JobState

TRIES = 5
NEVER = datetime.min.replace(tzinfo=UTC)


def answer(session: Session, job_id: str, worker: str, *, lease_s: float) -> Claim | None:
    """Take a job for the bell of `job_id`: of its queue, due, of the workspace whose turn it is; None where none is."""
    rung = session.get(Job, job_id)
    if rung is None:
        return None
    if rung.state in ACTIVE:  # its worker may have fallen silent
        return claim(session, job_id, worker, lease_s=lease_s)
    for _ in range(TRIES):
        chosen = _next(session, rung.queue)
        if chosen is None:
            return None
        taken = claim(session, chosen, worker, lease_s=lease_s)
        if taken is not None:
            return taken
        session.expire_all()  # somebody was quicker
    return None


def _next(session: Session, queue: str) -> str | None:
    now = database_now(session)
    due = (
        Job.queue == queue,
        Job.state == JobState.QUEUED.value,
        or_(Job.not_before.is_(None), Job.not_before <= now),
    )
    waiting = session.execute(
        select(Job.workspace_id, func.max(Job.priority), func.min(Job.id))
        .where(*due)
        .group_by(Job.workspace_id)
    ).all()
    if not waiting:
        return None
    workspace_id, priority, _ = waiting[0] if len(waiting) == 1 else _turn(session, queue, waiting)
    first = select(func.min(Job.id)).where(*due, Job.workspace_id == workspace_id, Job.priority == priority)
    return session.scalar(first)


def _turn(session: Session, queue: str, waiting: Sequence[Row[str, int, str]]) -> Row[str, int, str]:
    """Of (workspace, priority, oldest job) that of the workspace whose turn it is."""
    ids = [workspace_id for workspace_id, _, _ in waiting]
    priorities = dict(
        session.execute(select(Workspace.id, Workspace.priority).where(Workspace.id.in_(ids))).tuples().all()
    )
    highest = max(priorities.values())
    entitled = [each for each in waiting if priorities[each[0]] == highest]
    return min(entitled, key=lambda each: (_served(session, each[0], queue) or NEVER, each[2]))


def _served(session: Session, workspace_id: str, queue: str) -> datetime | None:
    """When a job of the workspace was last taken from the queue."""
    return session.scalar(
        select(func.max(Job.claimed_at)).where(Job.workspace_id == workspace_id, Job.queue == queue)
    )
