"""The verifications of a ranking: those that its request asks for, and those that exist."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import Job, Ranking, Verification
from app.queue import verifications
from app.queue.ranking_order import order_of, ordered

# fields of a normalised `verify` that say nothing about a single training
_OF_THE_WHOLE = frozenset({"top_k", "seeds", "recipe_of", "recipes"})


def add_wanted(session: Session, ranking: Ranking, job: Job) -> None:
    """Add the missing verifications that the request of an ordered ranking asks for; `job`: the ranking's locked job."""
    asked = ranking.request.get("verify")
    if asked:
        add(session, ranking, job, asked, _chosen(session, ranking, asked))


def add(
    session: Session, ranking: Ranking, job: Job, asked: dict[str, Any], checkpoint_ids: list[str]
) -> list[Verification]:
    """Add a verification for each checkpoint and seed of `asked` (a normalised `verify`), except those that exist."""
    there = select(func.count()).select_from(Verification).where(Verification.ranking_id == ranking.id)
    total = session.scalar(there) or 0
    return [
        verifications.add(
            session,
            workspace_id=ranking.workspace_id,
            request=_request(ranking, asked, checkpoint_id, seed),
            parent=job,
            position=total + number,
            terms=_terms(asked),
        )
        for number, (checkpoint_id, seed) in enumerate(_missing(session, ranking, asked, checkpoint_ids))
    ]


def _chosen(session: Session, ranking: Ranking, asked: dict[str, Any]) -> list[str]:
    best = ordered(ranking)
    if asked["top_k"] == "all":
        return best
    if order_of(ranking) == "predicted_map":
        # their own mAP changes what is predicted: whoever is best then is not to be trained in addition
        query = select(Verification.checkpoint_id).where(
            Verification.ranking_id == ranking.id, Verification.terms == _terms(asked)
        )
        already = set(session.scalars(query))
        best.sort(key=lambda id: id not in already)
    return best[: asked["top_k"]]


def _missing(
    session: Session, ranking: Ranking, asked: dict[str, Any], checkpoint_ids: list[str]
) -> list[tuple[str, int]]:
    """(checkpoint, seed) of each verification that is asked for and does not exist."""
    query = select(Verification.checkpoint_id, Verification.request).where(
        Verification.ranking_id == ranking.id, Verification.terms == _terms(asked)
    )
    there = {(row.checkpoint_id, row.request.get("seed")) for row in session.execute(query)}
    return [(id, seed) for id in checkpoint_ids for seed in asked["seeds"] if (id, seed) not in there]


def _terms(asked: dict[str, Any]) -> str:
    return verifications.terms_of({name: asked[name] for name in asked if name not in _OF_THE_WHOLE})


def _request(ranking: Ranking, asked: dict[str, Any], checkpoint_id: str, seed: int) -> dict[str, Any]:
    terms: dict[str, Any] = asked["recipes"][asked["recipe_of"][checkpoint_id]]
    return terms | {
        "dataset_id": ranking.dataset_id,
        "checkpoint_id": checkpoint_id,
        "seed": seed,
        "name": None,
    }
