"""A plan: one recipe resolved for one checkpoint and one number of images. It decides every number of a training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from models_store.build import architecture_of
from models_store.manifest import Manifest
from models_store.trainable import POLICIES
from worker.training.errors import Untrainable
from worker.training.recipe import Phase, Recipe, fitting, recipe_named

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
LENGTHS = ("epochs", "iterations", "budget_s")
# Evaluation is outside a budget and should not take longer than what it is for.
BUDGET_EVALUATIONS = 10
STOPS = ("stop_at_iterations", "stop_at_s")


@dataclass(frozen=True)
class Plan:
    """What decides the numbers; `stop_at_iterations` and `stop_at_s` only where the training pauses.

    `iterations` in all, or None where `budget_s` seconds of training decide: they are then fixed from the pace of the
    first iterations. `batch_size` images make one step of the optimiser, of which `micro_batch` go through the
    network at once (None: as the device allows). `image_size`: shorter side in pixels, None for the detector's own
    size. `freeze` replaces that of every phase. `data_dependent_init`:
    fresh layers begin at the scale of the training's images; a plan that was kept before there was a choice
    says nothing of it, and began without. `renewed_from`: the share of the iterations from which objects of some pictures are said
    anew at each step by the averaged weights (see `Renewal`), None for never. `init_band`: those within this factor of it are left alone; a plan of
    before there was one left nothing alone, as 1 does. `precision` auto: what the first device trains in (see precision_of), kept
    wherever the training goes on.
    """

    recipe: Recipe
    architecture: str
    family: str
    images: int
    seed: int
    batch_size: int
    evaluations: int
    iterations: int | None = None
    budget_s: float | None = None
    image_size: int | None = None
    freeze: str | None = None
    precision: str = "auto"
    patience: int | None = None
    ema: float = 0.0
    lr_factor: float = 1.0
    data_dependent_init: bool = False
    init_band: float = 1.0
    renewed_from: float | None = None
    micro_batch: int | None = None
    stop_at_iterations: int | None = None
    stop_at_s: float | None = None

    @property
    def iterations_per_epoch(self) -> int:
        return math.ceil(self.images / self.batch_size)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The recipe's, with the rate for this batch size and with this plan's freezing."""
        scale = self.lr_factor * dict(self.recipe.family_lr).get(self.family, 1.0)
        if self.recipe.lr_batch_size is not None:
            scale *= self.batch_size / self.recipe.lr_batch_size
        return tuple(
            replace(phase, lr=phase.lr * scale, freeze=self.freeze or phase.freeze)
            for phase in self.recipe.phases
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-safe dictionary; `from_json` turns it back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, value: str | bytes | Mapping[str, Any]) -> Plan:
        raw = dict(json.loads(value)) if isinstance(value, str | bytes) else dict(value)
        return cls(**(raw | {"recipe": Recipe.from_json(raw["recipe"])}))

    def identity(self) -> dict[str, Any]:
        """What must be equal for one training to go on as another: everything but where it pauses."""
        return {name: value for name, value in self.to_json().items() if name not in STOPS}


def plan_of(recipe: str | Recipe, *, manifest: Manifest, images: int, **overrides: Any) -> Plan:
    """The plan for fine-tuning a checkpoint on `images` training images by a recipe.

    Overrides: at most one of `epochs`, `iterations` and `budget_s`; `seed`, `batch_size`, `image_size`, `freeze`,
    `precision`, `patience`, `evaluations`, `ema`, `lr_factor`, `data_dependent_init`, `init_band`, `renewed_from`,
    `micro_batch`, `stop_at_iterations`, `stop_at_s`.
    None means the recipe's own.

    Raises Untrainable: `unknown_recipe`, `wrong_family` or `wrong_architecture` (naming the recipes that fit),
    `bad_plan`, `too_few_images`.
    """
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    if code := recipe.misfit(manifest):
        known = fitting(manifest)
        raise Untrainable(
            code,
            f"recipe {recipe.name} is for {', '.join(recipe.architectures or recipe.families)}, the checkpoint is a "
            f"{manifest.architecture}: {', '.join(known) if known else 'no recipe fits it'}",
        )
    if images < 1:
        raise Untrainable("too_few_images", "training needs at least one image")
    asked = {name: value for name, value in overrides.items() if value is not None}
    lengths = {name: asked.pop(name) for name in LENGTHS if name in asked}
    if len(lengths) > 1:
        raise Untrainable("bad_plan", f"give one of {', '.join(LENGTHS)}, not {' and '.join(lengths)}")
    settable = set(Plan.__dataclass_fields__) - {"recipe", "architecture", "family", "images"}
    if unknown := set(asked) - settable:
        raise Untrainable("bad_plan", f"a plan has no {', '.join(sorted(unknown))}")
    plan = Plan(
        **{
            "recipe": recipe,
            "architecture": manifest.architecture,
            "family": architecture_of(manifest.architecture).family,
            "images": images,
            "seed": 0,
            "batch_size": recipe.batch_size,
            "evaluations": recipe.evaluations,
            "patience": recipe.patience,
            "ema": recipe.ema,
            "image_size": recipe.image_size,
            "data_dependent_init": recipe.data_dependent_init,
            "init_band": recipe.init_band,
            **asked,
        }
    )
    if "budget_s" in lengths:
        plan = replace(plan, budget_s=float(lengths["budget_s"]))
    elif "iterations" in lengths or (recipe.iterations is not None and not lengths):
        plan = replace(plan, iterations=lengths.get("iterations", recipe.iterations))
    else:
        epochs = lengths.get("epochs", recipe.epochs)
        plan = replace(
            plan, iterations=max(1, round(epochs * plan.iterations_per_epoch)) if epochs > 0 else 0
        )
    if "evaluations" not in asked:
        plan = replace(plan, evaluations=_evaluations(plan))
    _check(plan)
    return plan


def _evaluations(plan: Plan) -> int:
    """As often as the recipe has it: of a training that is shorter, fewer."""
    recipe = plan.recipe
    if plan.iterations is None:
        return min(recipe.evaluations, BUDGET_EVALUATIONS)
    if recipe.iterations is not None:
        return recipe.evaluations
    share = plan.iterations / (recipe.epochs * plan.iterations_per_epoch)
    return max(1, min(recipe.evaluations, round(recipe.evaluations * share)))


def _check(plan: Plan) -> None:
    wrong = []
    for name in ("iterations", "budget_s", "image_size", "micro_batch", "patience", *STOPS):
        value = getattr(plan, name)
        if value is not None and not value > 0:
            wrong.append(f"{name} must be above 0, not {value}")
    for name in ("batch_size", "evaluations", "lr_factor"):
        if not getattr(plan, name) > 0:
            wrong.append(f"{name} must be above 0, not {getattr(plan, name)}")
    if plan.freeze is not None and plan.freeze not in POLICIES:
        wrong.append(f"freeze {plan.freeze!r}: {' | '.join(POLICIES)}")
    if plan.precision not in PRECISIONS:
        wrong.append(f"precision {plan.precision!r}: {' | '.join(PRECISIONS)}")
    if not 1 <= plan.init_band < math.inf:
        wrong.append(f"init_band must be a factor of at least 1, not {plan.init_band}")
    if not 0 <= plan.ema < 1:
        wrong.append(f"ema {plan.ema}: 0 or a decay below 1")
    if plan.renewed_from is not None and not (0 <= plan.renewed_from < 1 and plan.ema > 0):
        wrong.append(
            f"renewed_from {plan.renewed_from}: a share below 1, of a plan with averaged weights (ema)"
        )
    if plan.seed < 0:
        wrong.append(f"seed must be at least 0, not {plan.seed}")
    if wrong:
        raise Untrainable("bad_plan", "; ".join(wrong))
