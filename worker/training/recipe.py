"""Recipes: how a detector is fine-tuned, as data. One TOML file each in `recipes/`."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from models_store.build import architecture_of
from models_store.manifest import Manifest
from models_store.trainable import POLICIES
from worker.training.errors import Untrainable

FOLDER = Path(__file__).parent / "recipes"
OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "plateau", "steps")
# Of the seven candidates of docs/studies/fair-start those that lose by scaling lie within 2.1 of the aim, those that win
# beyond 3.6, on every dataset.
INIT_BAND = 3.0
FAMILIES = ("two_stage", "one_stage", "ssd", "detr")


@dataclass(frozen=True)
class Phase:
    """Part of a training with an optimiser of its own. `lr` is for the recipe's `lr_batch_size` where it has one.

    Where a recipe is given in iterations, `epochs` are shares of them.
    """

    epochs: float
    lr: float
    freeze: str = "none"


@dataclass(frozen=True)
class Augmentation:
    """`flip`: chance of a mirrored image. `scales`: image sizes, as factors, one drawn for each iteration.

    `crop`: chance of a crop whose sides are at least `crop_least` of the image's. `colour`: brightness, contrast and
    saturation are multiplied by factors up to this far from 1.
    """

    flip: float = 0.0
    scales: tuple[float, ...] = (1.0,)
    crop: float = 0.0
    crop_least: float = 0.5
    colour: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Everything that is decided before dataset and detector are known.

    `families` and, where given, `architectures` (patterns of names) say what it fits. `slow`: rate factors of
    parameters whose names contain the key, `family_lr` of all parameters in a family. `warmup_iterations`: at most, never longer than an epoch. `steps`: where
    the rate is multiplied by `gamma`, as shares of a phase. `plateau_patience`: evaluations on validation without a
    better mAP until the rate is. `ema`: decay of the averaged weights, 0 for none. `iterations` instead of the phases'
    epochs makes the length independent of the dataset. `evaluations` on validation are spread evenly. `patience`:
    evaluations without a better mAP until training stops. `rois`: proposals of an image that a two-stage detector's
    heads learn from, None for the detector's own number. `data_dependent_init`: fresh layers begin at the scale
    of the training's images (see data_dependent_init.py), `init_std`: which scale; a layer learns the faster the
    larger its inputs are, so it belongs to the rate. `init_band`: what is within this factor of it is left alone; 1
    leaves nothing alone.
    """

    name: str
    title: str
    source: str
    help: str
    families: tuple[str, ...]
    phases: tuple[Phase, ...]
    optimiser: str
    batch_size: int
    evaluations: int
    architectures: tuple[str, ...] = ()
    lr_batch_size: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_norms: bool = True
    decay_biases: bool = True
    backbone_lr_factor: float = 1.0
    slow: tuple[tuple[str, float], ...] = ()
    family_lr: tuple[tuple[str, float], ...] = ()
    warmup_iterations: int = 1000
    warmup_from: float = 0.001
    schedule: str = "constant"
    steps: tuple[float, ...] = ()
    gamma: float = 0.1
    plateau_patience: int = 10
    clip_norm: float | None = None
    ema: float = 0.0
    iterations: int | None = None
    patience: int | None = None
    image_size: int | None = None
    rois: int | None = None
    data_dependent_init: bool = True
    init_std: float = 1.0
    init_band: float = INIT_BAND
    augmentation: Augmentation = Augmentation()

    @property
    def epochs(self) -> float:
        return sum(phase.epochs for phase in self.phases)

    def fits(self, manifest: Manifest) -> bool:
        return self.misfit(manifest) is None

    def misfit(self, manifest: Manifest) -> str | None:
        """The code of the reason why this recipe does not fit a checkpoint; None where it does."""
        if architecture_of(manifest.architecture).family not in self.families:
            return "wrong_family"
        named = not self.architectures or any(
            fnmatchcase(manifest.architecture, p) for p in self.architectures
        )
        return None if named else "wrong_architecture"

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Recipe:
        """From a TOML file's or a JSON object's values. Raises Untrainable `bad_option`."""
        known = {field.name for field in fields(cls)}
        if unknown := set(raw) - known:
            raise Untrainable(
                "bad_option", f"a recipe has no {', '.join(sorted(unknown))}: {', '.join(sorted(known))}"
            )
        values = dict(raw)
        for name in ("slow", "family_lr"):
            pairs = values.get(name, {})
            values[name] = tuple(pairs.items() if isinstance(pairs, Mapping) else map(tuple, pairs))
        for name in ("families", "architectures", "steps"):
            values[name] = tuple(values.get(name, ()))
        try:
            values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
            augmentation = dict(values.get("augmentation", {}))
            augmentation["scales"] = tuple(augmentation.get("scales", (1.0,)))
            values["augmentation"] = Augmentation(**augmentation)
            recipe = cls(**values)
        except (TypeError, KeyError, ValueError) as error:
            raise Untrainable("bad_option", f"recipe {raw.get('name')!r} cannot be read: {error}") from None
        recipe.checked()
        return recipe

    def checked(self) -> None:
        """Raises Untrainable `bad_option` for values that no training can have."""
        wrong = []
        if self.optimiser not in OPTIMISERS:
            wrong.append(f"optimiser {self.optimiser!r}: {' | '.join(OPTIMISERS)}")
        if self.schedule not in SCHEDULES:
            wrong.append(f"schedule {self.schedule!r}: {' | '.join(SCHEDULES)}")
        if not self.families or set(self.families) - set(FAMILIES):
            wrong.append(f"families {list(self.families)}: of {', '.join(FAMILIES)}")
        for phase in self.phases:
            if phase.freeze not in POLICIES:
                wrong.append(f"freeze {phase.freeze!r}: {' | '.join(POLICIES)}")
            if not (phase.epochs > 0 and phase.lr > 0):
                wrong.append(f"a phase of {phase.epochs} epochs at rate {phase.lr}: both must be above 0")
        if not self.phases:
            wrong.append("no phases")
        if self.batch_size < 1 or self.evaluations < 1:
            wrong.append("batch_size and evaluations must be at least 1")
        if not 0 < self.init_std < math.inf:
            wrong.append(f"init_std {self.init_std}: above 0")
        if not 1 <= self.init_band < math.inf:
            wrong.append(f"init_band {self.init_band}: a factor of at least 1")
        if not 0 <= self.ema < 1:
            wrong.append(f"ema {self.ema}: 0 or a decay below 1")
        if self.schedule == "steps" and not all(0 < step < 1 for step in self.steps):
            wrong.append(f"steps {list(self.steps)}: shares of a phase, between 0 and 1")
        if not self.augmentation.scales or not all(s > 0 for s in self.augmentation.scales):
            wrong.append("augmentation.scales: factors above 0")
        if wrong:
            raise Untrainable("bad_option", f"recipe {self.name}: {'; '.join(wrong)}")


@functools.cache
def _read() -> tuple[Recipe, ...]:
    return tuple(
        Recipe.from_json({"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))})
        for path in sorted(FOLDER.glob("*.toml"))
    )


def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    return {recipe.name: recipe for recipe in _read()}


def recipe_named(name: str) -> Recipe:
    """Raises Untrainable `unknown_recipe`."""
    known = recipes()
    if name not in known:
        raise Untrainable("unknown_recipe", f"there is no recipe {name!r}: {', '.join(known)}")
    return known[name]


def fitting(manifest: Manifest) -> tuple[str, ...]:
    """Names of the recipes that fit a checkpoint."""
    return tuple(name for name, recipe in recipes().items() if recipe.fits(manifest))


# Published for the architecture, in this order.
DEFAULTS = ("maskrcnn_fpn_1x", "maskrcnn_c4_1x", "detr", "deformable_detr", "frcnn_full", "sgd_1x", "quick")


def default_recipe(manifest: Manifest) -> Recipe:
    """The published recipe of a checkpoint's architecture. Raises Untrainable `wrong_family` where none fits."""
    for name in DEFAULTS:
        if (recipe := recipes()[name]).fits(manifest):
            return recipe
    raise Untrainable("wrong_family", f"no recipe fits {manifest.architecture}")
