"""Was it worth it? The fine-tunings that a pretraining or a self-training is asked to be compared by."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Checkpoint, Dataset
from app.errors import Conflict, refuse, twice
from app.schemas.pretrainings import CompareTerms
from app.services import recipes, trainings
from app.services.checkpoints import unusable
from app.services.datasets import ready, with_boxes
from app.services.records import named
from app.settings import Settings

MOST_FINE_TUNINGS = 500
# where few labels are what pretraining is for
FEW_LABELS = 0.05


def of(
    session: Session,
    workspace_id: str,
    asked: CompareTerms | None,
    dataset: Dataset,
    whose: list[tuple[str, str, str]],
    settings: Settings,
    *,
    self_training: bool = False,
    terms: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The request's `compare` with every default filled in.

    dataset: what is measured on where the request names no other. whose: (pointer, architecture, name) of what the recipe has to
    fit. terms: those of the students of a self-training, which its comparison has where it names none.

    Raises InvalidRequest naming each field at fault, Conflict for what cannot be used.
    """
    if asked is None:
        return None
    own = trainings.terms_of(asked)
    fractions = asked.label_fractions or [1.0 if self_training else FEW_LABELS]
    faults = trainings.faults_of(own, settings, "/compare")
    faults += twice("/compare/label_fractions", fractions)
    faults += twice("/compare/checkpoint_ids", asked.checkpoint_ids)
    if asked.label_fraction is not None or asked.shots is not None:
        message = "a comparison has label_fractions: leave label_fraction and shots out"
        faults.append({"pointer": "/compare/label_fraction", "message": message})
    if self_training and asked.self_training:
        message = "it is what the method self_training compares anyway: leave it out"
        faults.append({"pointer": "/compare/self_training", "message": message})
    if self_training and asked.dataset_id not in (None, dataset.id):
        message = "a self-training is compared on its labelled dataset: leave it out"
        faults.append({"pointer": "/compare/dataset_id", "message": message})
    arms = 2 + asked.self_training + len(asked.checkpoint_ids)
    total = len(fractions) * asked.seeds * arms
    if total > MOST_FINE_TUNINGS:
        message = f"{total} fine-tunings are more than the {MOST_FINE_TUNINGS} of one comparison"
        faults.append({"pointer": "/compare/label_fractions", "message": message})
    others: list[tuple[str, Checkpoint]] = []
    for place, id in enumerate(asked.checkpoint_ids):
        pointer = f"/compare/checkpoint_ids/{place}"
        found = named(session, Checkpoint, workspace_id, id, pointer, faults)
        if found is not None:
            others.append((pointer, found))
    target = dataset
    if asked.dataset_id is not None and asked.dataset_id != dataset.id and not self_training:
        target = named(session, Dataset, workspace_id, asked.dataset_id, "/compare/dataset_id", faults)
    refuse(faults)
    ready(target)
    with_boxes(target, "what is found is compared with boxes (compare.dataset_id may name another dataset)")
    for pointer, checkpoint in others:
        if why := unusable(checkpoint):
            raise Conflict(why, errors=[{"pointer": pointer, "message": why}])
    if terms is not None and all(own[name] is None for name in GIVEN):
        recipe = terms["recipe"]
    else:
        recipe, terms = asked.recipe or trainings.COMPARING_RECIPE, None
    whose = whose + [
        (pointer, each.architecture or "", f"the checkpoint {each.name}") for pointer, each in others
    ]
    misfits = [(pointer, recipes.misfit(recipe, of, who)) for pointer, of, who in whose]
    refuse([{"pointer": pointer, "message": why} for pointer, why in misfits if why])
    return {
        "dataset_id": target.id,
        "label_fractions": fractions,
        "seeds": asked.seeds,
        "checkpoint_ids": asked.checkpoint_ids,
        "self_training": asked.self_training,
        "terms": terms or recipes.filled(own, recipe),
    }


# of the terms those that decide how it is fine-tuned
GIVEN = (
    "recipe",
    *recipes.BUDGETS,
    *recipes.OF_RECIPE,
    "freeze",
    "precision",
    "lr_factor",
)
