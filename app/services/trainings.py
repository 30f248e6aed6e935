"""The terms of trainings in requests for verifications, rankings, searches and studies: checked, and filled in."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Checkpoint
from app.errors import Fault, refuse
from app.schemas.verifications import TrainingTerms
from app.services import recipes
from app.settings import Settings

# made to compare candidates of every family by trainings of one length
COMPARING_RECIPE = "quick"
_AT_ONCE = 500  # SQLite takes a limited number of parameters


def terms_of(asked: TrainingTerms) -> dict[str, Any]:
    """The terms among the fields of a request."""
    return {name: getattr(asked, name) for name in TrainingTerms.model_fields}


def faults_of(terms: dict[str, Any], settings: Settings, at: str = "") -> list[Fault]:
    """What is wrong with the terms whatever the checkpoint is.

    at: JSON pointer of the object that holds the terms.
    """
    return recipes.faults_of(terms, at, settings.verify_time_limit_s / 60)


def comparable_faults(terms: dict[str, Any], settings: Settings) -> list[Fault]:
    """As `faults_of`, for trainings by one recipe."""
    return faults_of(terms | {"recipe": terms["recipe"] or COMPARING_RECIPE}, settings)


def comparable(terms: dict[str, Any], checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """The terms, with the values of the one recipe for all of these checkpoints for those that were left out.

    Raises InvalidRequest where the recipe does not fit one of them: they could not be compared.
    """
    recipe = terms["recipe"] or COMPARING_RECIPE
    _refuse_misfits(recipe, checkpoints, "/recipe")
    return recipes.filled(terms, recipe)


def each_by_its_own(terms: dict[str, Any], checkpoints: Sequence[Checkpoint], at: str) -> dict[str, Any]:
    """`{"recipe_of": {checkpoint id: recipe}, "recipes": {recipe: the terms filled in by it}}`

    Where the terms name no recipe, each checkpoint has the published one of its architecture.

    Raises InvalidRequest where the recipe does not fit one of them.
    """
    _refuse_misfits(terms["recipe"], checkpoints, f"{at}/recipe")
    recipe_of = {one.id: recipes.chosen(terms["recipe"], one.architecture) for one in checkpoints}
    filled = {name: recipes.filled(terms, name) for name in sorted(set(recipe_of.values()))}
    return {"recipe_of": recipe_of, "recipes": filled}


def checkpoints_of(session: Session, ids: Sequence[str]) -> list[Checkpoint]:
    """The rows of these ids, in their order; all ids are known to exist."""
    found: dict[str, Checkpoint] = {}
    for start in range(0, len(ids), _AT_ONCE):
        query = select(Checkpoint).where(Checkpoint.id.in_(ids[start : start + _AT_ONCE]))
        found |= {row.id: row for row in session.scalars(query)}
    return [found[id] for id in ids]


def _refuse_misfits(recipe: str | None, checkpoints: Sequence[Checkpoint], pointer: str) -> None:
    misfits = [
        recipes.misfit(recipe, one.architecture, f"the candidate {one.name} ({one.id})")
        for one in checkpoints
    ]
    refuse([{"pointer": pointer, "message": why} for why in misfits if why])
