"""What follows for a study when a ranking or verification of it changes state: with the last one, the `study` job."""

from datetime import datetime

from sqlalchemy.orm import Session

from app.db.tables import Job, Ranking, Study, Verification
from app.errors import Conflict
from app.queue import events, wholes
from app.queue.jobs import Locked
from app.queue.states import ENDED, JobState


def ranked(session: Session, study: Study, ranking: Ranking, *, max_attempts: int, now: datetime) -> None:
    """One of its rankings began or ended."""
    wholes.tell_of_ranking(session, study, ranking, now)
    if study.state == JobState.QUEUED:
        wholes.begin(session, study, "working", now=now)
    if ranking.state in ENDED:
        part_ended(session, study, max_attempts=max_attempts, now=now)


def part_ended(session: Session, study: Study, *, max_attempts: int, now: datetime) -> None:
    """With the last of its rankings and verifications the report is written."""
    done, total = (
        sum(counts)
        for counts in zip(
            wholes.counted(session, study, Ranking), wholes.counted(session, study, Verification), strict=True
        )
    )
    progress = {"done": done, "total": total, "unit": "parts", "fraction": done / total}
    events.append(session, study, "progress", progress, now=now)
    if done < total or study.state in ENDED or wholes.is_deciding(session, study):
        return
    if study.cancel_requested_at is not None:
        wholes.end(session, study, JobState.CANCELLED, now=now)
    else:
        wholes.add_own_job(session, study, "concluding", max_attempts=max_attempts, now=now)


def concluded(session: Session, locked: Locked, now: datetime) -> None:
    """The study ends as its own job does."""
    study, job = locked.resource, locked.job
    if isinstance(study, Study) and study.job_id == job.id and job.state in ENDED:
        wholes.end(session, study, JobState(job.state), error=job.error, now=now)


def put_back(session: Session, study: Study, part: Job | None, now: datetime) -> None:
    """Make a locked study ready to hear of a job that is tried again; `part` None: its own. Raises Conflict."""
    if study.state == JobState.CANCELLING:
        raise Conflict(f"the study {study.id} is being cancelled; try again when it has ended")
    if part is not None and wholes.is_deciding(session, study):
        raise Conflict(f"the study {study.id} is being concluded; try again when {study.job_id} has ended")
    study.cancel_requested_at = None
    study.state = JobState.QUEUED.value if study.state in ENDED else study.state
    wholes.begin(session, study, "concluding" if part is None else "working", now=now)
