"""The candidates of a ranking that are to be fine-tuned: what is asked, and what that means for each checkpoint."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Candidate, Checkpoint, Ranking
from app.errors import Conflict
from app.queue import jobs, ranking_flow, ranking_verifications
from app.queue.states import ENDED
from app.schemas.verifications import RankingVerificationsCreate, RankingVerify
from app.services import recipes
from app.services.faults import Fault, refuse
from app.services.records import owned
from app.services.verifications import terms_of
from app.settings import Settings


def faults_of(asked: RankingVerify, at: str, settings: Settings) -> list[Fault]:
    """What is wrong with it whatever the candidates are; `at` is its JSON pointer."""
    faults = recipes.faults_of(terms_of(asked), at, settings.verify_time_limit_s / 60)
    faults += [
        {"pointer": f"{at}/seeds/{index}", "message": f"{seed} is named twice"}
        for index, seed in enumerate(asked.seeds)
        if seed in asked.seeds[:index]
    ]
    return faults


def resolved(asked: RankingVerify, checkpoints: Sequence[Checkpoint], at: str) -> dict[str, Any]:
    """The request as it is kept: terms as asked, the recipe of each checkpoint, and the terms filled in by each recipe.

    Raises InvalidRequest where the recipe does not fit one of them.
    """
    terms = terms_of(asked)
    misfits = [
        recipes.misfit(asked.recipe, one.architecture, f"the candidate {one.name} ({one.id})") for one in checkpoints
    ]
    refuse([{"pointer": f"{at}/recipe", "message": why} for why in misfits if why])
    recipe_of = {one.id: asked.recipe or recipes.default_recipe(one.architecture) for one in checkpoints}
    return terms | {
        "top_k": asked.top_k,
        "seeds": asked.seeds,
        "recipe_of": recipe_of,
        "recipes": {name: recipes.filled(terms, name) for name in sorted(set(recipe_of.values()))},
    }


def add(
    session: Session, workspace_id: str, ranking_id: str, asked: RankingVerificationsCreate, settings: Settings
) -> Ranking:
    """Verifications of a ranking that has ended with an order. Raises InvalidRequest, Conflict, NotFound."""
    owned(session, Ranking, workspace_id, ranking_id)
    ranking = jobs.lock_resource(session, Ranking, ranking_id)
    faults = faults_of(asked, "", settings)
    placed = [row["checkpoint_id"] for row in (ranking.result or {}).get("order") or [] if row.get("rank")]
    members = set(session.scalars(select(Candidate.checkpoint_id).where(Candidate.ranking_id == ranking_id)))
    faults += [
        {"pointer": f"/checkpoint_ids/{index}", "message": f"{id} is no candidate of the ranking {ranking_id}"}
        for index, id in enumerate(asked.checkpoint_ids or [])
        if id not in members
    ]
    refuse(faults)
    if ranking.state not in ENDED or not placed:
        raise Conflict(
            f"the ranking {ranking_id} is {ranking.state} and has {'an' if placed else 'no'} order: "
            "candidates are verified once it has ended with one"
        )
    chosen = asked.checkpoint_ids or (placed if asked.top_k == "all" else placed[: asked.top_k])
    rows = {row.id: row for row in session.scalars(select(Checkpoint).where(Checkpoint.id.in_(chosen)))}
    wanted = resolved(asked, [rows[id] for id in chosen], "")
    added = ranking_verifications.add(session, ranking, wanted, chosen, max_attempts=settings.max_attempts)
    if not added:
        raise Conflict("all of these were verified before, by the same terms and seeds; retry those that failed")
    ranking.cancel_requested_at = None
    ranking_flow.start_ranking(session, ranking, "verifying", now=database_now(session))
    return ranking
