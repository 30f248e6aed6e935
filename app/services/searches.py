"""Searches: making, finding, stopping, trying again, removing."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Candidate, Job, Ranking, Search, Verification
from app.errors import Conflict
from app.ids import new_id
from app.queue import control, events, jobs
from app.queue.states import ENDED, JobState
from app.queue.wholes import add_own_job, parts
from app.schemas.rankings import RankingCreate
from app.schemas.searches import SearchCreate, SearchQuery
from app.services import rankings, wholes
from app.services.faults import refuse
from app.services.listing import page
from app.services.records import owned
from app.settings import Settings

# fields of a request that its ranking has under the same name
OF_RANKING = ("name", "metrics", "layers", "level", "max_images", "calibrate", "zero_point", "rank_by", "filters")


def create(session: Session, workspace_id: str, asked: SearchCreate, settings: Settings) -> Search:
    """A search with the ranking it begins with. Raises InvalidRequest naming each field at fault, Conflict."""
    # every part ends with an evaluation, so one on schedule, at the end, is enough
    terms = wholes.terms_of(asked) | {"budget_minutes": None, "evaluations": asked.evaluations or 1}
    refuse(wholes.terms_faults(terms, settings.verify_time_limit_s / 60))
    ranked = rankings.normalised(ranking_request(asked), settings)
    ranking = rankings.create(session, workspace_id, ranked, max_attempts=settings.max_attempts)
    terms = wholes.filled(terms, wholes.checkpoints_of(session, asked.checkpoint_ids))
    search = Search(
        id=new_id("sr"),
        workspace_id=workspace_id,
        dataset_id=asked.dataset_id,
        state=JobState.QUEUED,
        request=_request(asked, ranking.request, terms),
        created_at=database_now(session),
    )
    session.add(search)
    session.flush()
    ranking.search_id = search.id
    events.append(session, search, "state", {"state": search.state})
    session.flush()
    return search


def ranking_request(asked: SearchCreate) -> RankingCreate:
    """What its ranking is asked for; what is left out has the default there."""
    given = {name: getattr(asked, name) for name in OF_RANKING if name in asked.model_fields_set}
    if "score_image_size" in asked.model_fields_set:
        given["image_size"] = asked.score_image_size
    return RankingCreate(
        dataset_id=asked.dataset_id,
        checkpoint_ids=asked.checkpoint_ids,
        **{"calibrate": asked.calibrate, "seed": asked.seed} | given,
    )


def _request(asked: SearchCreate, ranked: dict[str, Any], terms: dict[str, Any]) -> dict[str, Any]:
    shared = {"dataset_id": asked.dataset_id, "seed": asked.seed}
    return terms | shared | {
        "checkpoint_ids": asked.checkpoint_ids,
        "budget_minutes": asked.budget_minutes,
        "eta": asked.eta,
        "min_iterations": asked.min_iterations,
        "max_val_images": asked.max_val_images,
        **{name: ranked[name] for name in OF_RANKING},
        "score_image_size": ranked["image_size"],
        # what each of its verifications is asked for, but for the checkpoint and the length
        "verification": terms | shared | {"name": None, "max_val_images": asked.max_val_images},
    }  # fmt: skip


def find(session: Session, workspace_id: str, id: str) -> Search:
    return owned(session, Search, workspace_id, id)


def listed(session: Session, workspace_id: str, asked: SearchQuery) -> tuple[list[Search], str | None]:
    query = select(Search).where(Search.workspace_id == workspace_id)
    if asked.state is not None:
        query = query.where(Search.state == asked.state)
    if asked.dataset_id is not None:
        query = query.where(Search.dataset_id == asked.dataset_id)
    if asked.checkpoint_id is not None:
        with_it = select(Ranking.search_id).join(Candidate, Candidate.ranking_id == Ranking.id)
        with_it = with_it.where(Candidate.checkpoint_id == asked.checkpoint_id, Ranking.search_id.is_not(None))
        query = query.where(Search.id.in_(with_it))
    return page(session, query, Search, asked)


def cancel(session: Session, workspace_id: str, id: str) -> Search:
    """Asks all its jobs to stop; harmless for one that has ended."""
    owned(session, Search, workspace_id, id)
    return control.cancel_whole(session, Search, id)


def retry(session: Session, workspace_id: str, id: str, settings: Settings) -> Search:
    """Goes on with a search that failed or was cancelled, from where its trainings stand. Raises Conflict for any other."""
    owned(session, Search, workspace_id, id)
    search = jobs.lock_resource(session, Search, id)
    if search.state not in ENDED:
        raise Conflict(f"the search {id} is {search.state}; it can be tried again when it has ended")
    if search.state == JobState.SUCCEEDED:
        raise Conflict(f"the search {id} has ended with its answer; start another one with a larger budget")
    again = wholes.failed_jobs(session, search) if search.job_id is None else _of_the_round(session, search)
    if not again:  # it was cancelled between two rounds
        search.state, search.cancel_requested_at = JobState.QUEUED.value, None
        now = database_now(session)
        add_own_job(session, search, "deciding", max_attempts=settings.max_attempts, now=now)
    for job_id in again:
        control.retry(session, job_id)
    return search


def _of_the_round(session: Session, search: Search) -> list[str]:
    """Its own job where that did not succeed; else the parts that were cancelled. One that failed is left out for good."""
    own = session.get(Job, search.job_id)
    if own is not None and own.state in (JobState.FAILED, JobState.CANCELLED):
        return [own.id]
    rows = parts(session, search, Verification)
    return [row.job_id for row in rows if row.state == JobState.CANCELLED]


def remove(session: Session, workspace_id: str, id: str) -> None:
    """Deletes a search that has ended, with its ranking and verifications; fine-tuned checkpoints stay. Raises Conflict."""
    wholes.remove(session, owned(session, Search, workspace_id, id, lock=True))
