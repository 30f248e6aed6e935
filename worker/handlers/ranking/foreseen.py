"""What fine-tuning each candidate of a ranking will take, by the steps that were measured here."""

from sqlalchemy.orm import Session

from app.db import documents
from app.queue import training_costs


def foreseen_of(session: Session, candidates: list[documents.Cost | None]) -> list[training_costs.Foreseen]:
    """What fine-tuning each of them takes, by what has been measured until now."""
    asked = [cost.get("training") if cost else None for cost in candidates]
    steps = training_costs.steps_of(session, [one["key"] for one in asked if one])
    return [
        training_costs.foreseen(one, steps.get(one["key"] or "")) if one else training_costs.Foreseen()
        for one in asked
    ]
