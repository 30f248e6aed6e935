"""Searches: making them."""

from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Candidate, Ranking, Search
from app.errors import refuse
from app.ids import new_id
from app.queue import tree
from app.queue.ranking_rules import SCORING_SHARE
from app.queue.states import JobKind, JobState
from app.schemas.rankings import RankingCreate
from app.schemas.searches import SearchCreate
from app.services import ranking_requests, rankings, trainings
from app.services.listing import Listing
from app.settings import Settings

# fields of a request that its ranking has under the same name
OF_RANKING = (
    "name",
    "metrics",
    "layers",
    "level",
    "max_images",
    "calibrate",
    "zero_point",
    "rank_by",
    "filters",
)


def create(session: Session, workspace_id: str, asked: SearchCreate, settings: Settings) -> Search:
    """A search with its ranking. Raises InvalidRequest naming each field at fault, Conflict."""
    # every part ends with an evaluation, so one on schedule, at the end, is enough
    terms = trainings.terms_of(asked) | {"budget_minutes": None, "evaluations": asked.evaluations or 1}
    refuse(trainings.comparable_faults(terms, settings))
    ranked = ranking_requests.normalised(ranking_request(asked), settings)
    rankings.checked(session, workspace_id, ranked)
    ranked["scoring_budget_s"] = SCORING_SHARE * asked.budget_minutes * 60
    search = Search(
        id=new_id("sr"),
        workspace_id=workspace_id,
        dataset_id=asked.dataset_id,
        state=JobState.QUEUED,
        request={},
        created_at=database_now(session),
    )
    job = tree.begin(session, search, JobKind.SEARCH, max_attempts=settings.max_attempts)
    ranking = rankings.create(session, workspace_id, ranked, parent=job)
    terms = trainings.comparable(terms, trainings.checkpoints_of(session, asked.checkpoint_ids))
    search.request = _request(asked, ranking.request, terms)
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
    return (
        terms
        | shared
        | {
            "checkpoint_ids": asked.checkpoint_ids,
            "budget_minutes": asked.budget_minutes,
            "strategy": asked.strategy,
            "eta": asked.eta,
            "parallel": asked.parallel,
            "min_improvement": asked.min_improvement,
            "min_iterations": asked.min_iterations,
            "max_val_images": asked.max_val_images,
            **{name: ranked[name] for name in OF_RANKING},
            "score_image_size": ranked["image_size"],
            # what each of its verifications is asked for, but for the checkpoint and the length
            "verification": terms | shared | {"name": None, "max_val_images": asked.max_val_images},
        }
    )


def _with_candidate(checkpoint_id: str) -> ColumnElement[bool]:
    query = select(Ranking.search_id).join(Candidate, Candidate.ranking_id == Ranking.id)
    return Search.id.in_(
        query.where(Candidate.checkpoint_id == checkpoint_id, Ranking.search_id.is_not(None))
    )


LISTING = Listing(Search, "sr", {"checkpoint_id": _with_candidate})
