"""What follows for a search when a part of it changes state: the `search` job that decides the next round, in one transaction.

First comes its ranking, then rounds of verifications. Whoever ends the last part of a round adds the job; the job adds the
parts of the next round, or none, and the search is over.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Job, Ranking, Search, Verification
from app.errors import Conflict
from app.queue import events, wholes
from app.queue.jobs import Locked, stop
from app.queue.states import ENDED, JobKind, JobState

# of a search's budget: what scoring may take; more would leave too little to fine-tune what it found
SCORING_SHARE = 0.5


def ranked(session: Session, search: Search, ranking: Ranking, *, max_attempts: int, now: datetime) -> None:
    """Its ranking began or ended. One that is tried again after the search went on changes nothing."""
    wholes.tell_of_ranking(session, search, ranking, now)
    if search.state in ENDED or search.stage not in (None, "ranking"):
        return
    if ranking.state not in ENDED:
        wholes.begin(session, search, "ranking", now=now)
    elif ranking.state == JobState.CANCELLED or search.cancel_requested_at is not None:
        wholes.end(session, search, JobState.CANCELLED, now=now)
    elif ranking.state == JobState.FAILED:
        wholes.end(session, search, JobState.FAILED, error=ranking.error, now=now)
    else:
        wholes.add_own_job(session, search, "deciding", max_attempts=max_attempts, now=now)


def limit_scoring(session: Session, ranking: Ranking, *, now: datetime) -> None:
    """Candidates of a search's locked ranking that nobody has begun to score stay out once scoring took its share."""
    search = session.get_one(Search, ranking.search_id)
    of_ranking = [JobKind.SCORE.value, JobKind.SHARD.value]
    jobs = session.scalars(select(Job).where(Job.resource_id == ranking.id, Job.kind.in_(of_ranking))).all()
    took = [job.finished_at - job.started_at for job in jobs if job.started_at and job.finished_at]
    seconds = sum((each.total_seconds() for each in took), 0.0)
    if seconds < SCORING_SHARE * search.request["budget_minutes"] * 60:
        return
    begun = {job.payload["checkpoint_id"] for job in jobs if job.state != JobState.QUEUED}
    why = f"scoring the others took {seconds:.0f} s, more than {SCORING_SHARE:.0%} of the search's budget"
    for job in jobs:
        if job.state == JobState.QUEUED and job.payload["checkpoint_id"] not in begun:
            candidate = session.get_one(Candidate, (ranking.id, job.payload["checkpoint_id"]))
            stop(session, job, now=now)
            candidate.state, candidate.error = job.state, {"code": "no_room", "detail": why}


def verified(session: Session, search: Search, *, max_attempts: int, now: datetime) -> None:
    """A part of its round ended: with the last one it is decided what comes next."""
    done, total = wholes.counted(session, search, Verification)
    progress = {"done": done, "total": total, "unit": "verifications", "fraction": done / total}
    events.append(session, search, "progress", progress, now=now)
    if done < total or search.state in ENDED or wholes.is_deciding(session, search):
        return
    if search.cancel_requested_at is not None:
        wholes.end(session, search, JobState.CANCELLED, now=now)
    else:
        wholes.add_own_job(session, search, "deciding", max_attempts=max_attempts, now=now)


def decided(session: Session, locked: Locked, now: datetime) -> None:
    """Its own job ended: the search goes on where that added parts, and is over where not."""
    search, job = locked.resource, locked.job
    if not isinstance(search, Search) or search.job_id != job.id or job.state not in ENDED:
        return
    done, total = wholes.counted(session, search, Verification)
    if job.state != JobState.SUCCEEDED:
        wholes.end(session, search, JobState(job.state), error=job.error, now=now)
    elif done < total:
        wholes.begin(session, search, "training", now=now)
    elif search.cancel_requested_at is not None:
        wholes.end(session, search, JobState.CANCELLED, now=now)
    else:
        wholes.end(session, search, JobState.SUCCEEDED, now=now)


def put_back(session: Session, search: Search, part: Job | None, now: datetime) -> None:
    """Make a locked search ready to hear of a job that is tried again; `part` None: its own.

    Raises Conflict where the search no longer waits for it.
    """
    stage = "deciding"
    if search.state == JobState.CANCELLING:
        raise Conflict(f"the search {search.id} is being cancelled; try again when it has ended")
    if part is not None:
        of_ranking = part.kind != JobKind.VERIFY
        if of_ranking and search.rungs is not None:
            return  # it has gone on with the order it had
        if wholes.is_deciding(session, search):
            raise Conflict(
                f"the search {search.id} is being decided on; try again when {search.job_id} has ended"
            )
        if search.state == JobState.SUCCEEDED:
            raise Conflict(f"the search {search.id} has ended with its answer; start another one")
        stage = "ranking" if of_ranking else "training"
    search.cancel_requested_at = None
    search.state = JobState.QUEUED.value if search.state in ENDED else search.state
    wholes.begin(session, search, stage, now=now)
