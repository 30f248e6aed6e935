"""What searches and studies have in common: the terms of their trainings, and letting go of their parts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.tables import Checkpoint, Event, Ranking, Verification
from app.errors import Conflict
from app.queue.states import ENDED
from app.queue.wholes import Whole, parts
from app.schemas.verifications import TrainingTerms
from app.services import rankings, recipes, verifications
from app.services.faults import Fault, refuse
from app.services.records import forget_jobs

# made to compare candidates of every family by trainings of one length
COMPARING_RECIPE = "quick"


def terms_faults(terms: dict[str, Any], most_minutes: float) -> list[Fault]:
    return recipes.faults_of(terms | {"recipe": terms["recipe"] or COMPARING_RECIPE}, "", most_minutes)


def terms_of(asked: TrainingTerms) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in TrainingTerms.model_fields}


def filled(terms: dict[str, Any], checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """The terms with what they leave open as the one recipe for all of these has it.

    Raises InvalidRequest where the recipe does not fit one of them: they could not be compared.
    """
    recipe = terms["recipe"] or COMPARING_RECIPE
    misfits = [
        recipes.misfit(recipe, one.architecture, f"the candidate {one.name} ({one.id})") for one in checkpoints
    ]
    refuse([{"pointer": "/recipe", "message": why} for why in misfits if why])
    return recipes.filled(terms, recipe)


def checkpoints_of(session: Session, ids: Sequence[str]) -> list[Checkpoint]:
    """The rows of ids that are known to be there, in their order."""
    found: dict[str, Checkpoint] = {}
    for start in range(0, len(ids), 500):  # SQLite takes a limited number of parameters
        query = select(Checkpoint).where(Checkpoint.id.in_(ids[start : start + 500]))
        found |= {row.id: row for row in session.scalars(query)}
    return [found[id] for id in ids]


def failed_jobs(session: Session, row: Whole) -> list[str]:
    """One job for each part that failed or was cancelled, rankings first: what can be tried again."""
    again: list[str] = []
    for ranking in parts(session, row, Ranking):
        again += rankings.failed_jobs(session, ranking)
    trained = parts(session, row, Verification)
    return again + [one.job_id for one in trained if one.state in ("failed", "cancelled")]


def remove(session: Session, row: Whole) -> None:
    """Deletes one that has ended, with its rankings, verifications and jobs; fine-tuned checkpoints stay.

    Raises Conflict while it or a part of it is at work.
    """
    name = type(row).__name__.lower()
    trained = parts(session, row, Verification)
    ranked = parts(session, row, Ranking)
    if row.state not in ENDED:
        raise Conflict(f"the {name} is {row.state}: cancel it first (POST .../{row.id}:cancel), or wait until it ends")
    for part in (*ranked, *trained):
        if part.state not in ENDED:
            raise Conflict(
                f"{part.id}, a part of the {name}, is {part.state}: wait until it ends",
                errors=[{"pointer": "", "message": f"used by {part.id}"}],
            )
    verifications.forget(session, [one.id for one in trained])
    for ranking in ranked:
        rankings.forget(session, ranking)
    forget_jobs(session, row.id)
    session.execute(delete(Event).where(Event.stream_id == row.id))
    session.delete(row)
