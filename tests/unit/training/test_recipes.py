import dataclasses
import json
import math

import pytest
from small_training import MOBILENET, fresh, fresh_detr

from models_store.archs import ARCHITECTURES
from models_store.manifest import Input, Manifest
from worker.training.errors import Untrainable
from worker.training.plan import Plan, plan_of
from worker.training.recipe import FOLDER, Recipe, default_recipe, fitting, recipes

NAMES = {
    "frcnn_head",
    "frcnn_full",
    "sgd_1x",
    "sgd_2x",
    "sgd_6x",
    "maskrcnn_fpn_1x",
    "maskrcnn_fpn_2x",
    "maskrcnn_fpn_6x",
    "maskrcnn_c4_1x",
    "maskrcnn_c4_2x",
    "detr",
    "deformable_detr",
    "detreg_1pct",
    "detreg_2pct",
    "detreg_5pct",
    "detreg_10pct",
    "quick",
}
COCO_IMAGES = 118_287


def manifest(architecture: str) -> Manifest:
    return Manifest(
        architecture=architecture,
        format="test",
        kind="detector",
        input=Input(),
        layers=(),
        parameters=0,
        source={},
        weights_sha256="0",
    )


def test_every_recipe_is_one_file_with_title_source_and_help() -> None:
    assert set(recipes()) == NAMES
    assert {path.stem for path in FOLDER.glob("*.toml")} == NAMES
    for recipe in recipes().values():
        assert recipe.title
        assert recipe.source
        assert len(recipe.help) > 40


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_has_a_default_and_quick(architecture: str) -> None:
    known = fitting(manifest(architecture))
    assert default_recipe(manifest(architecture)).name in known
    assert "quick" in known
    assert default_recipe(manifest(architecture)).name != "quick"


def test_a_wrong_recipe_names_the_fitting_ones() -> None:
    with pytest.raises(Untrainable) as refusal:
        plan_of("detr", manifest=manifest("detrank/fasterrcnn_fpn"), images=10)
    assert refusal.value.code == "wrong_family"
    assert "frcnn_full" in refusal.value.detail
    assert "deformable_detr" not in refusal.value.detail
    with pytest.raises(Untrainable) as refusal:
        plan_of("deformable_detr", manifest=manifest("transformers/detr"), images=10)
    assert refusal.value.code == "wrong_architecture"
    assert "detr" in refusal.value.detail
    with pytest.raises(Untrainable, match="no recipe 'adamw'") as refusal:
        plan_of("adamw", manifest=manifest("transformers/detr"), images=10)
    assert refusal.value.code == "unknown_recipe"


@pytest.mark.parametrize(
    ("name", "published", "drops"),
    [
        ("sgd_1x", 90_000, (60_000, 80_000)),
        ("sgd_2x", 180_000, (120_000, 160_000)),
        ("sgd_6x", 540_000, (480_000, 520_000)),
        ("maskrcnn_c4_2x", 180_000, (120_000, 160_000)),
        ("maskrcnn_fpn_6x", 540_000, (480_000, 520_000)),
    ],
)
def test_published_schedules_come_back_at_the_size_of_coco(
    name: str, published: int, drops: tuple[int, ...]
) -> None:
    recipe = recipes()[name]
    architecture = recipe.architectures[0] if recipe.architectures else "torchvision/retinanet_resnet50_fpn"
    plan = plan_of(name, manifest=manifest(architecture), images=COCO_IMAGES)
    assert plan.batch_size == 16
    assert plan.iterations == pytest.approx(published, rel=0.003)
    assert [step * published for step in recipe.steps] == pytest.approx(drops)
    assert plan.phases[0].lr == 0.02
    assert (recipe.momentum, recipe.weight_decay, recipe.decay_norms) == (0.9, 1e-4, False)


def test_the_rate_of_sgd_follows_the_batch_and_adams_does_not() -> None:
    sgd = plan_of("sgd_1x", manifest=manifest("detrank/retinanet"), images=100, batch_size=4)
    assert sgd.phases[0].lr == pytest.approx(0.005)
    assert sgd.iterations == round(12.2 * 25)
    adam = plan_of("frcnn_full", manifest=manifest("detrank/fasterrcnn_fpn"), images=100, batch_size=2)
    assert [(p.epochs, p.lr, p.freeze) for p in adam.phases] == [(10, 1e-4, "backbone"), (20, 1e-5, "none")]


def test_a_family_may_have_a_rate_of_its_own() -> None:
    raw = dataclasses.asdict(recipes()["quick"]) | {"family_lr": {"detr": 0.25}}
    wanted = Recipe.from_json(raw)
    rate = wanted.phases[0].lr
    assert plan_of(wanted, manifest=manifest("transformers/detr"), images=9).phases[0].lr == rate / 4
    assert plan_of(wanted, manifest=manifest("detrank/retinanet"), images=9).phases[0].lr == rate


def test_a_plan_survives_json_and_tells_itself_from_others() -> None:
    for name, recipe in recipes().items():
        family = {"two_stage": "detrank/fasterrcnn_fpn", "detr": "transformers/detr"}
        architecture = (recipe.architectures or (family[recipe.families[0]],))[0].replace("*", "transformers")
        plan = plan_of(name, manifest=manifest(architecture), images=50, seed=3, stop_at_iterations=7)
        again = Plan.from_json(json.dumps(plan.to_json()))
        assert again == plan
        assert dataclasses.replace(plan, stop_at_iterations=20).identity() == plan.identity()
        assert dataclasses.replace(plan, seed=4).identity() != plan.identity()


@pytest.mark.parametrize(
    "asked",
    [
        {"epochs": 3, "iterations": 5},
        {"iterations": 0},
        {"budget_s": -1.0},
        {"batch_size": 0},
        {"freeze": "everything"},
        {"precision": "int8"},
        {"ema": 1.0},
        {"seed": -1},
        {"colour": 3},
        {"epochs": 0},
        {"lr_factor": 0.0},
    ],
)
def test_a_plan_that_cannot_be_is_refused(asked: dict) -> None:
    with pytest.raises(Untrainable) as refusal:
        plan_of("quick", manifest=manifest("detrank/fasterrcnn_fpn"), images=50, **asked)
    assert refusal.value.code == "bad_plan"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "lion"},
        {"schedule": "zigzag"},
        {"families": ["three_stage"]},
        {"phases": []},
        {"colour": 1},
        {"phases": [{"epochs": 1, "lr": 0.1, "freeze": "half"}]},
        {"schedule": "steps", "steps": [2.0]},
        {"batch_size": 0},
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict) -> None:
    raw = dataclasses.asdict(recipes()["quick"]) | changes
    with pytest.raises(Untrainable) as refusal:
        Recipe.from_json(raw)
    assert refusal.value.code == "bad_option"


def test_lengths_in_epochs_iterations_and_seconds() -> None:
    asked = {"manifest": manifest("detrank/fasterrcnn_fpn"), "images": 50, "batch_size": 8}
    assert plan_of("frcnn_head", **asked, epochs=2).iterations == 2 * math.ceil(50 / 8)
    assert plan_of("frcnn_head", **asked, iterations=9).iterations == 9
    timed = plan_of("frcnn_head", **asked, budget_s=60)
    assert (timed.iterations, timed.budget_s) == (None, 60.0)
    assert plan_of("quick", **asked).iterations == recipes()["quick"].iterations


def test_a_shorter_training_is_evaluated_less_often() -> None:
    asked = {"manifest": manifest("detrank/fasterrcnn_fpn"), "images": 50}
    assert plan_of("frcnn_head", **asked).evaluations == 30
    assert plan_of("frcnn_head", **asked, epochs=6).evaluations == 6
    assert plan_of("frcnn_head", **asked, epochs=90).evaluations == 30
    assert plan_of("frcnn_head", **asked, iterations=1).evaluations == 1
    assert plan_of("frcnn_head", **asked, budget_s=60).evaluations == 10
    assert plan_of("frcnn_head", **asked, budget_s=60, evaluations=4).evaluations == 4
    assert plan_of("quick", **asked, iterations=9).evaluations == recipes()["quick"].evaluations


def test_recipes_fit_real_detectors() -> None:
    assert "maskrcnn_c4_1x" in fitting(fresh("detrank/maskrcnn_c4", "torchvision/resnet18").manifest)
    assert "maskrcnn_fpn_1x" not in fitting(fresh("detrank/fasterrcnn_fpn", MOBILENET).manifest)
    assert "detreg_1pct" in fitting(fresh_detr("deformable_detr").manifest)
