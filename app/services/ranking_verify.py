"""The candidates of a ranking that are to be fine-tuned: what is asked, and what it means for each."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Ranking
from app.errors import Conflict, Fault, refuse, twice
from app.queue import ranking_verifications, tree
from app.queue.ranking_order import ordered
from app.queue.states import ENDED
from app.schemas.verifications import RankingVerificationsCreate, RankingVerify
from app.services import trainings, works
from app.settings import Settings


def faults_of(asked: RankingVerify, at: str, settings: Settings) -> list[Fault]:
    """What is wrong with the request whatever the candidates are; `at` is its JSON pointer."""
    faults = trainings.faults_of(trainings.terms_of(asked), settings, at)
    return faults + twice(f"{at}/seeds", asked.seeds)


def resolved(asked: RankingVerify, checkpoints: Sequence[Checkpoint], at: str) -> dict[str, Any]:
    """The request as it is kept: terms as asked, each checkpoint's recipe, and the terms by each recipe.

    Raises InvalidRequest where the recipe does not fit one of them.
    """
    terms = trainings.terms_of(asked)
    by_recipe = trainings.each_by_its_own(terms, checkpoints, at)
    return terms | {"top_k": asked.top_k, "seeds": asked.seeds} | by_recipe


def add(
    session: Session,
    workspace_id: str,
    ranking_id: str,
    asked: RankingVerificationsCreate,
    settings: Settings,
) -> Ranking:
    """Verifications of a ranking that has ended with an order. Raises InvalidRequest, Conflict, NotFound."""
    ranking, job = works.locked(session, workspace_id, Ranking, ranking_id)
    faults = faults_of(asked, "", settings)
    placed = ordered(ranking)
    members = set(session.scalars(select(Candidate.checkpoint_id).where(Candidate.ranking_id == ranking_id)))
    faults += [
        {
            "pointer": f"/checkpoint_ids/{index}",
            "message": f"{id} is no candidate of the ranking {ranking_id}",
        }
        for index, id in enumerate(asked.checkpoint_ids or [])
        if id not in members
    ]
    refuse(faults)
    if ranking.state not in ENDED or not placed:
        raise Conflict(
            f"the ranking {ranking_id} is {ranking.state} and has {'an' if placed else 'no'} order: "
            "candidates are verified once it has ended with one"
        )
    tree.refuse_if_decided(session, job)
    chosen = asked.checkpoint_ids or (placed if asked.top_k == "all" else placed[: asked.top_k])
    wanted = resolved(asked, trainings.checkpoints_of(session, chosen), "")
    added = ranking_verifications.add(session, ranking, job, wanted, chosen)
    if not added:
        raise Conflict(
            "all of these were verified before, by the same terms and seeds; retry those that failed"
        )
    return ranking
