"""The verifications of a ranking: which are wanted, which are there, and whether its result has seen them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Ranking, Verification
from app.queue import verifications
from app.queue.states import ENDED, JobState

# of a normalised `verify`, what says nothing about a single training
_OF_THE_WHOLE = frozenset({"top_k", "seeds", "recipe_of", "recipes"})


def add_wanted(session: Session, ranking: Ranking, *, max_attempts: int) -> None:
    """Adds what the request of a locked ranking that has its order wants verified and is not there yet."""
    asked = ranking.request.get("verify")
    if asked:
        add(session, ranking, asked, _chosen(ranking, asked), max_attempts=max_attempts)


def is_complete(session: Session, ranking: Ranking) -> bool:
    """Whether everything that the request wants verified was added, and the result has seen what succeeded."""
    asked = ranking.request.get("verify")
    missing = asked and _missing(session, ranking, asked, _chosen(ranking, asked))
    return not missing and are_concluded(session, ranking)


def add(
    session: Session, ranking: Ranking, asked: dict[str, Any], checkpoint_ids: list[str], *, max_attempts: int
) -> list[Verification]:
    """A verification for each checkpoint and seed as `asked` (a normalised `verify`), but those that are there already."""
    _, total = counted(session, ranking.id)
    return [
        verifications.add(
            session,
            workspace_id=ranking.workspace_id,
            request=_request(ranking, asked, checkpoint_id, seed),
            owner=ranking,
            position=total + number,
            terms=_terms(asked),
            max_attempts=max_attempts,
        )
        for number, (checkpoint_id, seed) in enumerate(_missing(session, ranking, asked, checkpoint_ids))
    ]


def _chosen(ranking: Ranking, asked: dict[str, Any]) -> list[str]:
    ordered = [row["checkpoint_id"] for row in (ranking.result or {}).get("order") or [] if row.get("rank")]
    return ordered if asked["top_k"] == "all" else ordered[: asked["top_k"]]


def _missing(
    session: Session, ranking: Ranking, asked: dict[str, Any], checkpoint_ids: list[str]
) -> list[tuple[str, int]]:
    """(checkpoint, seed) of those that are wanted and not there."""
    query = select(Verification.checkpoint_id, Verification.request).where(
        Verification.ranking_id == ranking.id, Verification.terms == _terms(asked)
    )
    there = {(row.checkpoint_id, row.request.get("seed")) for row in session.execute(query)}
    return [(id, seed) for id in checkpoint_ids for seed in asked["seeds"] if (id, seed) not in there]


def _terms(asked: dict[str, Any]) -> str:
    return verifications.terms_of({name: asked[name] for name in asked if name not in _OF_THE_WHOLE})


def counted(session: Session, ranking_id: str) -> tuple[int, int]:
    """(how many have ended, how many there are)"""
    states = session.scalars(select(Verification.state).where(Verification.ranking_id == ranking_id)).all()
    return sum(state in ENDED for state in states), len(states)


def unfinished(session: Session, ranking_id: str) -> bool:
    done, total = counted(session, ranking_id)
    return done < total


def are_concluded(session: Session, ranking: Ranking) -> bool:
    """Whether the ranking's result was made from all verifications that succeeded, and from no other."""
    succeeded = session.scalars(
        select(Verification.id).where(
            Verification.ranking_id == ranking.id, Verification.state == JobState.SUCCEEDED.value
        )
    )
    return set(succeeded) == set((ranking.result or {}).get("verified_ids") or ())


def _request(ranking: Ranking, asked: dict[str, Any], checkpoint_id: str, seed: int) -> dict[str, Any]:
    terms = asked["recipes"][asked["recipe_of"][checkpoint_id]]
    return terms | {"dataset_id": ranking.dataset_id, "checkpoint_id": checkpoint_id, "seed": seed, "name": None}
