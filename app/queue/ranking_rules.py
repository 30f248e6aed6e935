"""How a ranking differs: it ends with its candidates where none could be scored, and may have seconds for scoring only."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Job, Ranking
from app.errors import CandidateFailed, Problem, detail_of
from app.queue.states import ENDED, JobKind, JobState

# Share of a search's budget that scoring may take: more would leave too little for fine-tuning.
SCORING_SHARE = 0.5


def verdict(session: Session, job: Job) -> tuple[JobState, Problem | None] | None:
    """A ranking without one scored candidate fails, or is cancelled, as they were."""
    candidates = session.scalars(
        select(Candidate).where(Candidate.ranking_id == job.resource_id).order_by(Candidate.position)
    ).all()
    states = {candidate.state for candidate in candidates}
    if JobState.SUCCEEDED in states:
        return None
    if JobState.FAILED not in states:
        return JobState.CANCELLED, None
    errors = [
        {"pointer": f"/checkpoint_ids/{one.position}", "message": detail_of(one.error, "no reason is known")}
        for one in candidates
        if one.state == JobState.FAILED
    ]
    return JobState.FAILED, CandidateFailed(
        "no candidate could be scored, so there is nothing to order; the first reason: "
        + errors[0]["message"],
        errors=errors,
    ).to_dict()


def beyond_budget(session: Session, job: Job) -> Sequence[tuple[Job, Problem]]:
    """Candidates that nobody has begun to score when the others have used up the request's `scoring_budget_s`, and why.

    A search's ranking has one: SCORING_SHARE of the search's budget.
    """
    budget_s = session.get_one(Ranking, job.resource_id).request.get("scoring_budget_s")
    if budget_s is None:
        return []
    of_scoring = [JobKind.SCORE.value, JobKind.SHARD.value]
    jobs = session.scalars(
        select(Job).where(Job.resource_id == job.resource_id, Job.kind.in_(of_scoring)).order_by(Job.id)
    ).all()
    seconds = sum(each.worked_s for each in jobs if each.state in ENDED)
    if seconds < budget_s:
        return []
    why = f"scoring the others took {seconds:.0f} s, more than {SCORING_SHARE:.0%} of the search's budget"
    return [
        (each, CandidateFailed(why, code="no_room").to_dict())
        for each in jobs
        if each.parent_id == job.id and each.state not in ENDED and each.started_at is None
    ]
