"""Pretraining recipes: those of fine-tuning, with what is learned from regions. One TOML file each in `recipes/`."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models_store.manifest import Manifest
from worker.pretraining.errors import Unpretrainable
from worker.pretraining.proposals import STRATEGIES
from worker.training.plan import Plan, plan_of
from worker.training.recipe import Recipe

FOLDER = Path(__file__).parent / "recipes"
SMALLEST_CROP = 32


@dataclass(frozen=True)
class RegionSettings:
    """What is learned from. `proposals`: where regions come from, at most `max_proposals` of a picture.

    `embedding_layer`: the encoder's map whose mean over a crop of `crop_size` pixels is the vector to be told.
    `sizes`: shorter and longer side that pictures get where nobody says otherwise, None for the detector's own.
    """

    proposals: str = "selective_search"
    max_proposals: int = 30
    embedding_layer: str = "backbone.c3"
    crop_size: int = 128
    sizes: tuple[int, int] | None = None

    def checked(self) -> RegionSettings:
        """Raises Unpretrainable: `unknown_proposals`, `bad_plan`."""
        if self.proposals not in STRATEGIES:
            raise Unpretrainable(
                "unknown_proposals", f"there are no proposals {self.proposals!r}: {', '.join(STRATEGIES)}"
            )
        if self.max_proposals < 1 or self.crop_size < SMALLEST_CROP:
            raise Unpretrainable(
                "bad_plan", f"max_proposals must be at least 1 and crop_size at least {SMALLEST_CROP}"
            )
        return self

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RegionSettings:
        sizes = raw.get("sizes")
        return cls(**(dict(raw) | {"sizes": None if sizes is None else (int(sizes[0]), int(sizes[1]))}))


@dataclass(frozen=True)
class PretrainingRecipe:
    training: Recipe
    regions: RegionSettings


@dataclass(frozen=True)
class PretrainingPlan:
    """A recipe resolved for one detector and one number of pictures. It decides every number of a pretraining."""

    training: Plan
    regions: RegionSettings

    def to_json(self) -> dict[str, Any]:
        return {"training": self.training.to_json(), "regions": json.loads(json.dumps(asdict(self.regions)))}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> PretrainingPlan:
        return cls(Plan.from_json(raw["training"]), RegionSettings.from_json(raw["regions"]))


@functools.cache
def recipes() -> dict[str, PretrainingRecipe]:
    """All pretraining recipes by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        regions = RegionSettings.from_json(values.pop("regions", {})).checked()
        training = Recipe.from_json({"name": path.stem, "data_dependent_init": False, **values})
        found[path.stem] = PretrainingRecipe(training, regions)
    return found


# For pictures of one's own, whose number nobody knows: the first that fits.
DEFAULTS = ("detreg_quick", "detreg_quick_detr")


def pretraining_plan_of(
    recipe: str,
    *,
    manifest: Manifest,
    images: int,
    proposals: str | None = None,
    max_proposals: int | None = None,
    embedding_layer: str | None = None,
    **overrides: Any,
) -> PretrainingPlan:
    """The plan for pretraining a detector on `images` pictures.

    Overrides: those of `worker.training.plan_of`. None means the recipe's own. Raises Untrainable as that does, and
    Unpretrainable: `unknown_proposals`, `bad_plan`.
    """
    if recipe not in recipes():
        raise Unpretrainable(
            "unknown_recipe", f"there is no pretraining recipe {recipe!r}: {', '.join(recipes())}"
        )
    found = recipes()[recipe]
    given = {"proposals": proposals, "max_proposals": max_proposals, "embedding_layer": embedding_layer}
    asked = {name: value for name, value in given.items() if value is not None}
    regions = RegionSettings(**(asdict(found.regions) | asked)).checked()
    plan = plan_of(found.training, manifest=manifest, images=images, **overrides)
    return PretrainingPlan(plan, regions)
