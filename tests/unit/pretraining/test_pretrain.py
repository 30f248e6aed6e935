"""A tiny pretraining from start to end: it learns, it goes on where it stood, and a detector fine-tunes from it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models_store import load_detector
from models_store.pretraining import placed_over
from models_store.save import save_detector
from tests.small_detr import small_detr
from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction
from worker.pretraining.errors import Unpretrainable
from worker.pretraining.pretrain import prepared, pretrain, usable
from worker.pretraining.recall import recall_of
from worker.pretraining.recipe import (
    PretrainingPlan,
    RegionSettings,
    pretraining_plan_of,
    recipes,
)
from worker.training.errors import TrainingDiverged
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids, Watch
from worker.training.plan import plan_of

SMALL = small_detr()


def detector_of(backbone_folder: Path, model_type: str = "deformable_detr", **config: float):
    placed = placed_over(load_detector(backbone_folder), model_type, config=SMALL | config, seed=0)
    return prepared(placed, load_detector(backbone_folder), "backbone.c3", None, 0)


def plan_for(detector, images: int, **changes) -> PretrainingPlan:
    asked = {
        "iterations": 40,
        "image_size": 64,
        "batch_size": 4,
        "lr_factor": 5.0,
        "evaluations": 2,
        "seed": 0,
    }
    recipe = "detreg_quick" if detector.family.model_type == "deformable_detr" else "detreg_quick_detr"
    return pretraining_plan_of(
        recipe, manifest=detector.manifest, images=images, max_proposals=8, **(asked | changes)
    )


def ids(dataset: Dataset, split: str) -> list[int]:
    return [image.id for image in dataset.images if image.split == split]


def run(detector, toy: Dataset, found: dict, folder: Path, plan: PretrainingPlan, **options):
    return pretrain(
        detector,
        toy,
        plan,
        Ids(ids(toy, "train"), ids(toy, "val"), []),
        found,
        folder,
        **options,
    )


@pytest.mark.parametrize("model_type", ["deformable_detr", "detr"])
def test_the_loss_falls_and_the_body_stays(
    toy: Dataset, found: dict, backbone_folder: Path, tmp_path: Path, model_type: str
) -> None:
    detector = detector_of(backbone_folder, model_type)
    body = {k: v.clone() for k, v in detector.module.model.backbone.state_dict().items()}
    looked = []
    made = run(
        detector,
        toy,
        found,
        tmp_path / "state",
        plan_for(detector, 24),
        looked=lambda epoch, watched: looked.append(epoch),
    )
    losses = [point["loss"] for point in made.curves]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:3]), losses
    embedding = [point["losses"]["loss_embedding"] for point in made.curves]
    assert np.mean(embedding[-5:]) < np.mean(embedding[:3])
    assert all(torch.equal(v, body[k]) for k, v in made.detector.module.model.backbone.state_dict().items())
    assert (made.finished, made.iterations, made.pictures, made.left_out) == ("completed", 40, 24, 0)
    assert looked == [0.0, 3.333, 6.667]
    assert made.end.objects is not None
    assert made.end.objects.objects == 6
    assert set(made.start["recall"]) == {"proposals", "objects"}
    assert made.curves[-1]["val"]["recall"]["objects"] == made.end.recall["objects"]

    save_detector(made.detector, tmp_path / "saved", class_names=("object",), lineage={})
    again = load_detector(tmp_path / "saved")
    assert again.manifest.options["object_class"] == 0
    own = made.detector.module.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in again.module.state_dict().items())
    # it is fine-tuned as any other checkpoint, with a class head of its own and without the embedding head
    plan = plan_of("quick", manifest=again.manifest, images=24, iterations=2, image_size=64, batch_size=2)
    trained = train(
        again,
        toy,
        plan,
        Ids(ids(toy, "train"), ids(toy, "val"), []),
        tmp_path / "tuned",
    )
    assert trained.detector.manifest.num_classes == 2
    assert not hasattr(trained.detector.module, "feature_embed")


class Stop(Exception):
    pass


@pytest.mark.slow
def test_one_that_was_killed_goes_on_to_the_same_weights(
    toy: Dataset, found: dict, backbone_folder: Path, tmp_path: Path
) -> None:
    def once(folder: Path, stop_after: int | None = None):
        detector = detector_of(backbone_folder)
        done = []

        def progress(at: int, total: int | None, message: str) -> None:
            done.append(at)
            if stop_after is not None and at == stop_after:
                raise Stop

        plan = plan_for(detector, 24, iterations=14)
        return run(
            detector, toy, found, folder, plan, host=Host(save_every_s=0.0), watch=Watch(progress=progress)
        )

    straight = once(tmp_path / "straight")
    with pytest.raises(Stop):
        once(tmp_path / "cut", stop_after=9)
    resumed = once(tmp_path / "cut")
    for a, b in zip(straight.detector.module.parameters(), resumed.detector.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert [p["loss"] for p in resumed.curves] == pytest.approx(
        [p["loss"] for p in straight.curves], rel=1e-6
    )
    assert resumed.start == straight.start


def test_random_regions_need_no_search(toy: Dataset, backbone_folder: Path, tmp_path: Path) -> None:
    detector = detector_of(backbone_folder)
    plan = plan_for(detector, 24, iterations=2, proposals="random")
    made = run(detector, toy, None, tmp_path / "state", plan)
    assert made.iterations == 2


def test_what_stops_being_a_number_stops_with_what_to_change(
    toy: Dataset, found: dict, backbone_folder: Path, tmp_path: Path
) -> None:
    detector = detector_of(backbone_folder)
    plan = plan_for(detector, 24)
    with torch.no_grad():
        detector.module.feature_embed.layers[1].weight.fill_(float("inf"))
    with pytest.raises(TrainingDiverged, match="loss_embedding"):
        run(detector, toy, found, tmp_path / "state", plan)
    assert not (tmp_path / "state" / "state.json").exists()


def test_too_few_pictures_and_pictures_without_a_region(toy: Dataset, found: dict) -> None:
    images = [image for image in toy.images if image.split == "train"]
    with pytest.raises(Unpretrainable) as refusal:
        usable(images[:5], RegionSettings(), found)
    assert refusal.value.code == "too_few_pictures"
    nothing = {image.id: np.zeros((0, 4), np.float32) for image in images}
    with pytest.raises(Unpretrainable) as refusal:
        usable(images, RegionSettings(), nothing)
    assert refusal.value.code == "no_proposals"
    assert "proposals random" in refusal.value.detail
    # a search that merges all into one region has found the picture itself, and no object
    whole = np.array([[0, 0, 1, 1]], np.float32)
    some = dict(found) | {images[0].id: np.zeros((0, 4), np.float32), images[1].id: whole}
    assert len(usable(images, RegionSettings(), some)) == len(images) - 2
    assert len(usable(images, RegionSettings("objectness"), some)) == len(images) - 1


def test_every_recipe_can_be_read_and_freezes_the_backbone() -> None:
    names = {
        "detreg_imagenet",
        "detreg_imagenet100",
        "detreg_imagenet100_top5",
        "detreg_coco",
        "detreg_imagenet_detr",
    }
    assert names < set(recipes())
    for recipe in recipes().values():
        assert {phase.freeze for phase in recipe.training.phases} == {"backbone"}
        assert recipe.training.clip_norm == 0.1
    top5 = recipes()["detreg_imagenet100_top5"]
    assert dataclasses.replace(top5.regions, max_proposals=30) == recipes()["detreg_imagenet100"].regions


def test_plans_refuse_what_nobody_knows(backbone_folder: Path) -> None:
    manifest = detector_of(backbone_folder).manifest
    for asked, code in (
        ({"recipe": "detreg_quick", "proposals": "guesses"}, "unknown_proposals"),
        ({"recipe": "detreg_quick", "max_proposals": 0}, "bad_plan"),
        ({"recipe": "nothing"}, "unknown_recipe"),
    ):
        with pytest.raises(Unpretrainable) as refusal:
            pretraining_plan_of(manifest=manifest, images=10, **asked)
        assert refusal.value.code == code
    plan = pretraining_plan_of("detreg_quick", manifest=manifest, images=100, proposals="random")
    assert PretrainingPlan.from_json(plan.to_json()) == plan


def test_recall_counts_objects_that_one_of_the_best_boxes_covers() -> None:
    truth = {1: np.array([[0, 0, 10, 10], [20, 20, 30, 30]], float), 2: np.zeros((0, 4))}
    far = [[50.0, 50, 60, 60]] * 10
    boxes = np.array([[0, 0, 10, 8], *far, [20, 20, 30, 30]], float)
    scores = np.array([0.9, *[0.5] * 10, 0.1])
    labels = np.zeros(12, np.int64)
    empty = Prediction(2, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    found = recall_of([Prediction(1, boxes, scores, labels), empty], truth)
    assert (found.images, found.objects) == (2, 2)
    assert found.at == {10: 0.5, 30: 1.0, 100: 1.0}
    assert recall_of([empty], truth).at == {10: None, 30: None, 100: None}
