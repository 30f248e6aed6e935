"""The plan of a training as a request asks for it."""

from collections.abc import Mapping
from typing import Any

import models_store
from worker.training.plan import Plan, plan_of

# of the images that a training is measured on, those whose pictures are drawn for people
MOST_LOOKED_AT = 500
# fields of a request that a plan has under the same name
OF_PLAN = (
    "seed",
    "freeze",
    "image_size",
    "batch_size",
    "precision",
    "patience",
    "evaluations",
    "ema",
    "lr_factor",
)


def plan_by(asked: Mapping[str, Any], manifest: models_store.Manifest, images: int) -> Plan:
    """By the terms of a normalised request, on so many training images. What it says nothing of is the recipe's own.

    Raises Untrainable.
    """
    minutes = asked.get("budget_minutes")
    return plan_of(
        asked["recipe"],
        manifest=manifest,
        images=images,
        epochs=asked.get("epochs"),
        iterations=asked.get("iterations"),
        budget_s=None if minutes is None else minutes * 60,
        # a request from before there was a choice: the others of its ranking or study began without
        data_dependent_init=asked.get("data_dependent_init", False),
        **{name: asked.get(name) for name in OF_PLAN},
    )
