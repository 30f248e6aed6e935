"""Jobs that may have children.

A job with children sleeps (`waiting`) until all of them have ended; then it is queued again and asked again. A handler that
adds children is asked again, one that adds none has finished. Every function takes jobs that are locked (`jobs.lock`), those
above included.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Candidate, Job
from app.db.work import Work, name_of
from app.errors import Conflict, Problem
from app.queue import events, jobs, notices
from app.queue.kinds import KINDS, kind_of
from app.queue.mirror import awaited, counted, has_children, mirror, parent_of, row_of, tell_progress
from app.queue.states import ACTIVE, BROKEN, ENDED, JobKind, JobState


def add(
    session: Session,
    kind: JobKind,
    row_id: str,
    *,
    workspace_id: str,
    parent: Job | None = None,
    payload: Mapping[str, Any] | None = None,
    max_attempts: int = jobs.MAX_ATTEMPTS,
    queue: str | None = None,
) -> Job:
    """Add a queued job for a row, to the queue of its kind or to `queue`. A child gets its parent's number of attempts, and the parent waits for it from now on.

    `payload` holds ids and small numbers: `{"checkpoint_id": ...}` of a `score` or `verify` job, with `"shards": n` where it
    is read in parts, and `"shard": i` of each of these.
    """
    job = jobs.new_job(
        session,
        kind=kind,
        queue=queue or KINDS[kind].queue,
        row_id=row_id,
        workspace_id=workspace_id,
        parent=parent,
        payload=payload or {},
        max_attempts=parent.max_attempts if parent is not None else max_attempts,
    )
    if parent is not None and parent.state not in (JobState.WAITING, *ACTIVE):
        _wait(session, parent, now=database_now(session))
    return job


def begin(
    session: Session,
    row: Work,
    kind: JobKind,
    *,
    parent: Job | None = None,
    payload: Mapping[str, Any] | None = None,
    max_attempts: int = jobs.MAX_ATTEMPTS,
) -> Job:
    """Keep a new row of work, say its state in its stream, and add the job that it is for."""
    session.add(row)
    session.flush()
    events.append(session, row, "state", {"state": row.state})
    job = add(
        session,
        kind,
        row.id,
        workspace_id=row.workspace_id,
        parent=parent,
        payload=payload,
        max_attempts=max_attempts,
    )
    row.job_id = job.id
    return job


def finish(session: Session, job: Job, *, now: datetime) -> None:
    """End a job whose handler has returned; one whose handler added children waits for them and is asked again."""
    added = _children(session, job, awaited(session, job)) if kind_of(job).children else []
    if not added:
        move(session, job, JobState.SUCCEEDED, now=now)
    elif job.state == JobState.CANCELLING:
        for child in added:
            cancel(session, child, now=now)
        move(session, job, JobState.CANCELLED, now=now)
    else:
        move(session, job, JobState.WAITING, now=now)


def move(
    session: Session,
    job: Job,
    state: JobState,
    *,
    now: datetime,
    error: Problem | None = None,
    delay_s: float = 0.0,
) -> None:
    """Take a job to a state: its row follows, and so does the job above it. The only way to change a state."""
    jobs.set_state(session, job, state, now=now, error=error, delay_s=delay_s)
    mirror(session, job, now=now)
    if state is JobState.RUNNING:
        _begin_above(session, job, now)
    elif state in ENDED:
        notices.tell(session, job, now=now)
        parent = parent_of(session, job)
        if parent is not None:
            _child_ended(session, parent, job, now)


def cancel(session: Session, job: Job, *, now: datetime | None = None, error: Problem | None = None) -> None:
    """Ask a job and all below it to stop: what waits is over at once, what runs when its worker hears of it. Idempotent.

    A job that has ended stays as it is. `error`: the reason, where no caller asked for it.
    """
    if job.state in ENDED or job.cancel_requested_at is not None:
        return
    now = now or database_now(session)
    job.cancel_requested_at = now
    if job.state == JobState.RUNNING:
        move(session, job, JobState.CANCELLING, now=now)
    elif job.state == JobState.QUEUED:
        move(session, job, JobState.CANCELLED, now=now, error=error)
    else:
        job.error = error
        events.append(
            session, job, "state", {"state": jobs.shown(job).value, "attempt": job.attempt}, now=now
        )
        mirror(session, job, now=now)
        for child in _children(session, job, kind_of(job).children):
            cancel(session, child, now=now)


def retry(session: Session, job: Job) -> None:
    """Queue again what failed or was cancelled in a job, else the job itself; all above it wait again.

    A part of a job that stops with the first of its children is tried again with the others that stopped. What succeeded is
    kept. Raises Conflict where there is nothing to try again, or what is above it no longer waits for it.
    """
    parent = parent_of(session, job)
    if parent is not None and kind_of(parent).fail_fast and job.state in BROKEN:
        if parent.state not in ENDED:
            raise Conflict(
                f"other parts of {parent.id} are still stopping or have begun anew; try again when it has ended"
            )
        job = parent
    again = _broken_in(session, job)
    if job.state not in ENDED or not (again or job.state in BROKEN):
        raise Conflict(
            f"the job {job.id} is {jobs.shown(job)}; only a failed or cancelled job can be tried again"
        )
    _refuse_what_is_gone(session, job)
    refuse_if_decided(session, job)
    now = database_now(session)
    for each in again or [job]:
        begun = each.started_at if has_children(session, each) else None
        jobs.forget_progress(each)
        each.started_at = begun
        move(session, each, JobState.QUEUED, now=now)
        _wait_above(session, each, now)


def go_on(session: Session, job: Job) -> None:
    """Queue a job that succeeded again, because more was asked of it. All jobs above it wait again."""
    now = database_now(session)
    jobs.forget_progress(job)
    move(session, job, JobState.QUEUED, now=now)
    _wait_above(session, job, now)


def prioritise(session: Session, job: Job, priority: int) -> None:
    """Among the jobs of its workspace a job and all below it, also what is added later, go before those of a smaller priority."""
    for each in (job, *below(session, job)):
        if each.priority != priority:
            each.priority = priority
            each.version += 1


def has_broken(session: Session, job: Job) -> bool:
    """Whether something can be tried again in a job that has ended."""
    return job.state in BROKEN or bool(_broken_in(session, job))


def below(session: Session, job: Job) -> list[Job]:
    """All jobs below a job, those nearest to it first."""
    return [each for found in _below(session, job).values() for each in found]


def _wait(session: Session, job: Job, *, now: datetime) -> None:
    """A queued or ended job sleeps until its children have ended, and so does all above it."""
    if job.state in ENDED and kind_of(job).asked is not None:
        job.started_at = job.started_at or now  # a whole that goes on is at work
    elif job.state in ENDED and not _has_whole_part(session, job):
        job.started_at = None
    job.cancel_requested_at = None
    jobs.set_state(session, job, JobState.WAITING, now=now)
    mirror(session, job, now=now)
    _wait_above(session, job, now)


def _has_whole_part(session: Session, job: Job) -> bool:
    query = select(Job.id).where(Job.parent_id == job.id, Job.state == JobState.SUCCEEDED.value)
    return session.scalar(query.limit(1)) is not None


def _wait_above(session: Session, job: Job, now: datetime) -> None:
    parent = parent_of(session, job)
    if parent is None or parent.state not in ENDED or _goes_on_without(session, parent, job):
        return
    _wait(session, parent, now=now)


def _goes_on_without(session: Session, parent: Job, job: Job) -> bool:
    goes_on = kind_of(parent).goes_on_without
    return goes_on is not None and goes_on(session, parent, JobKind(job.kind))


def _begin_above(session: Session, job: Job, now: datetime) -> None:
    for above in ancestors(session, job):
        if above.started_at is None:
            above.started_at = now
            data = {"state": jobs.shown(above).value, "attempt": above.attempt}
            events.append(session, above, "state", data, now=now)
            mirror(session, above, now=now)


def _child_ended(session: Session, parent: Job, child: Job, now: datetime) -> None:
    kind = kind_of(parent)
    tell_progress(session, parent, JobKind(child.kind), now=now)
    if parent.state == JobState.WAITING and kind.give_up is not None and parent.cancel_requested_at is None:
        for other, why in kind.give_up(session, parent):
            cancel(session, other, now=now, error=why)
    if parent.state != JobState.WAITING:
        return
    done, total = counted(session, parent, awaited(session, parent))
    if done < total and kind.fail_fast and child.state in BROKEN:
        cancel(session, parent, now=now)  # the job ends when the last of the others has ended
        return
    if done < total:
        mirror(session, parent, now=now)
        return
    state, error = _verdict(session, parent)
    if state is JobState.QUEUED:
        parent.attempt, parent.progress_done, parent.progress_total = 0, 0, None
        parent.progress_unit = parent.progress_message = parent.progress_eta_s = None
    move(session, parent, state, now=now, error=error)


def _verdict(session: Session, job: Job) -> tuple[JobState, Problem | None]:
    """The state of a job whose last child has ended: queued, to be asked again, unless it fails fast, was cancelled, or has a verdict."""
    kind = kind_of(job)
    if kind.fail_fast:
        for state in (JobState.FAILED, JobState.CANCELLED):
            broken = [each for each in _below(session, job)[job.id] if each.state == state]
            if broken:
                return state, broken[0].error or job.error
    if job.cancel_requested_at is not None:
        return JobState.CANCELLED, job.error
    settled = kind.verdict(session, job) if kind.verdict is not None else None
    return settled or (JobState.QUEUED, None)


def ancestors(session: Session, job: Job) -> Iterator[Job]:
    """The jobs above a job, the nearest first."""
    at = parent_of(session, job)
    while at is not None:
        yield at
        at = parent_of(session, at)


def _children(session: Session, job: Job, kinds: Iterable[JobKind]) -> list[Job]:
    """A job's children of these kinds that have not ended, locked and as they are now."""
    session.flush()
    query = (
        select(Job)
        .where(Job.parent_id == job.id, Job.kind.in_([kind.value for kind in kinds]))
        .where(Job.state.not_in([state.value for state in ENDED]))
        .order_by(Job.id)
        .with_for_update()
    )
    return list(session.scalars(query, execution_options={"populate_existing": True}))


def _below(session: Session, job: Job) -> dict[str, list[Job]]:
    """Everything below a job, by parent; one query for each level."""
    found: dict[str, list[Job]] = defaultdict(list)
    level = [job.id]
    session.flush()
    while level:
        query = select(Job).where(Job.parent_id.in_(level)).order_by(Job.id)
        next_level = list(session.scalars(query, execution_options={"populate_existing": True}))
        for each in next_level:
            found[each.parent_id or ""].append(each)
        level = [each.id for each in next_level if kind_of(each).children]
    return found


def _broken_in(session: Session, job: Job) -> list[Job]:
    """The lowest jobs below that failed or were cancelled and are to be tried again."""
    below = _below(session, job)

    def found_in(whole: Job) -> list[Job]:
        parts, again = below[whole.id], kind_of(whole).again
        if again is not None:
            wanted = {each.id for each in again(session, whole)}
            parts = [each for each in parts if each.id in wanted]
        found: list[Job] = []
        for part in parts:
            found += found_in(part) or ([part] if part.state in BROKEN else [])
        return found

    return found_in(job)


def _refuse_what_is_gone(session: Session, job: Job) -> None:
    row = row_of(session, job)
    if row is None:
        raise Conflict(f"what the job {job.id} worked for, {job.resource_id}, has been deleted")
    if job.kind == JobKind.SCORE:
        candidate = session.get(Candidate, (job.resource_id, job.payload["checkpoint_id"]))
        if candidate is None or candidate.job_id != job.id:
            raise Conflict(f"the ranking {job.resource_id} no longer waits for the job {job.id}")
    elif not _shares_row(session, job) and row.job_id not in (None, job.id):
        raise Conflict(f"{row.id} has a newer job, {row.job_id}; look at that one")


def _shares_row(session: Session, job: Job) -> bool:
    """Whether the job works for the same row as its parent, as the parts of a candidate or of a pretraining do."""
    parent = parent_of(session, job)
    return parent is not None and parent.resource_id == job.resource_id


def refuse_if_decided(session: Session, job: Job) -> None:
    """Raises Conflict where a job above an ended job is being worked on or stopped, or no longer takes its result."""
    part = job
    for above in ancestors(session, job):
        kind = kind_of(above)
        if _goes_on_without(session, above, part):
            return
        name = f"the {name_of(kind.table)} {above.resource_id}"
        if why := kind.refuses(session, above, JobKind(part.kind)) if kind.refuses is not None else None:
            raise Conflict(why)
        if above.state in (JobState.QUEUED, *ACTIVE):
            raise Conflict(f"{name} is {kind.is_asked}; try again when {above.id} has ended")
        if above.state == JobState.WAITING and above.cancel_requested_at is not None:
            raise Conflict(f"{name} is being cancelled; try again when it has ended")
        part = above
