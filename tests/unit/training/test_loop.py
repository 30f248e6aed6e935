"""What a training does besides stepping: evaluation, early stop, budgets, norms, averages, and giving up with a reason."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import MOBILENET, fresh, fresh_detr, ids, losses_of, recipe, small_plan, weights_of

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.training import loop as loop_module
from worker.training.errors import TrainingDiverged, Untrainable
from worker.training.fine_tune import train
from worker.training.inputs import Ids, Watch
from worker.training.plan import Plan
from worker.training.recipe import Augmentation, Phase
from worker.training.trained import Trained

PLAIN = Augmentation()
SGD = {"optimiser": "sgd", "schedule": "constant", "warmup_iterations": 0, "augmentation": PLAIN}


def run(
    detector: Detector,
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    watch: Watch = Watch(),
    **other_ids: list[int],
) -> Trained:
    found = {"train": ids(dataset, "train"), "val": ids(dataset, "val")[:2], "test": []}
    return train(detector, dataset, plan, Ids(**found | other_ids), folder, watch=watch)


class Counted:
    """Counts evaluations by the images that they are of, and may replace what they find."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, maps: list[float] | None = None) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.maps = maps
        real = loop_module.evaluated
        monkeypatch.setattr(loop_module, "evaluated", lambda *a, **k: self.count(real, *a, **k))

    def count(self, real, detector, dataset, image_ids, *rest, **more):
        found = real(detector, dataset, image_ids, *rest, **more)
        self.seen.append(tuple(image_ids))
        if self.maps is None:
            return found
        return dataclasses.replace(
            found, box=found.box | {"map": self.maps[min(len(self.seen), len(self.maps)) - 1]}
        )


def test_validation_chooses_and_test_is_looked_at_once(
    toy: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch, [0.1, 0.5, 0.3, 0.2])
    detector = fresh_detr()
    kept: list[dict[str, np.ndarray]] = []
    val, test = ids(toy, "val"), ids(toy, "test")
    trained = run(
        detector,
        toy,
        small_plan(detector, 14, iterations=8, evaluations=4),
        folder,
        Watch(progress=lambda done, total, message: kept.append(weights_of(detector))),
        val=val,
        test=test,
    )
    assert counted.seen == [tuple(val)] * 4 + [tuple(test)]
    assert trained.best == {
        "iteration": 4,
        "epoch": round(4 / 7, 3),
        "map": 0.5,
        "ap50": trained.best["ap50"],
    }
    for name, tensor in weights_of(trained.detector).items():
        assert np.array_equal(tensor, kept[3][name]), name
    assert [p["val"]["map"] for p in trained.curves if "val" in p] == [0.1, 0.5, 0.3, 0.2]
    assert trained.test.images == len(test)
    assert not trained.detector.module.training
    assert not any(p.requires_grad for p in trained.detector.module.parameters())


def test_patience_ends_a_training(toy: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Counted(monkeypatch, [0.1, 0.5, 0.3, 0.5, 0.9])
    detector = fresh_detr()
    trained = run(detector, toy, small_plan(detector, 14, iterations=10, evaluations=10, patience=2), folder)
    assert (trained.finished, trained.iterations, trained.best["iteration"]) == ("plateau", 4, 2)


def test_the_rate_falls_on_a_plateau_of_validation(
    toy: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counted(monkeypatch, [0.5, 0.4, 0.4, 0.4, 0.4, 0.4])
    detector = fresh_detr()
    wanted = recipe(**SGD | {"schedule": "plateau", "plateau_patience": 1, "phases": (Phase(1, 1e-3),)})
    trained = run(detector, toy, small_plan(detector, 14, wanted, iterations=6, evaluations=6), folder)
    assert [p["lr"] for p in trained.curves] == pytest.approx(
        [r * trained.curves[0]["lr"] for r in (1, 1, 1, 0.1, 0.1, 0.01)]
    )


def test_curves_say_everything_at_every_point(toy: Dataset, folder: Path) -> None:
    detector = fresh_detr()
    points: list[dict] = []
    trained = run(
        detector,
        toy,
        small_plan(detector, 14, iterations=5, evaluations=1),
        folder,
        Watch(point=points.append),
    )
    assert [p["iteration"] for p in trained.curves] == [1, 2, 3, 4, 5]
    assert len(points) == 5
    for point in trained.curves:
        assert set(point["losses"]) == {"loss_ce", "loss_bbox", "loss_giou", "auxiliary"}
        assert point["loss"] == pytest.approx(sum(point["losses"].values()))
    seconds = [p["seconds"] for p in trained.curves]
    assert seconds == sorted(seconds)
    assert trained.curves[2]["epoch"] == round(3 / 7, 3)
    json.dumps(trained.curves)


@pytest.mark.parametrize(("norm", "moves"), [("frozen", False), (None, False), ("bn", True)])
def test_running_statistics_move_only_where_the_norm_says_so(
    norm: str | None, moves: bool, toy: Dataset, folder: Path
) -> None:
    detector = fresh("detrank/fasterrcnn_fpn", MOBILENET, **({} if norm is None else {"norm": norm}))
    before = weights_of(detector)
    run(detector, toy, small_plan(detector, 14, recipe(rois=8), iterations=1), folder)
    after = weights_of(detector)
    running = [name for name in before if "running" in name]
    assert running
    assert any(not np.array_equal(before[n], after[n]) for n in running) is moves


def test_averaged_weights_are_what_is_kept(toy: Dataset, folder: Path) -> None:
    detector = fresh_detr()
    begun = {n: p.detach().clone() for n, p in detector.module.named_parameters()}
    wanted = recipe(**SGD | {"ema": 0.5, "phases": (Phase(1, 1e-3),), "clip_norm": None})
    seen: list[dict[str, torch.Tensor]] = []
    trained = run(
        detector,
        toy,
        small_plan(detector, 14, wanted, iterations=3, evaluations=1),
        folder,
        Watch(
            progress=lambda done, total, message: seen.append(
                {n: p.detach().clone() for n, p in detector.module.named_parameters()}
            )
        ),
    )
    average = dict(begun)
    for step, weights in enumerate(seen, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = {n: decay * average[n] + (1 - decay) * weights[n] for n in average}
    for name, parameter in trained.detector.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), average[name], rtol=1e-5, atol=1e-7)


def test_a_budget_counts_training_seconds_over_pauses(
    toy: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(loop_module.time, "perf_counter", lambda: clock[0])
    detector = fresh_detr()
    plan = small_plan(detector, 14, iterations=None, budget_s=20.0, evaluations=4)
    real = loop_module.Stepper.step

    def slow(self, *arguments):
        clock[0] += 3.0 if arguments[1] == 0 else 1.0  # the first step makes kernels ready
        return real(self, *arguments)

    monkeypatch.setattr(loop_module.Stepper, "step", slow)
    paused = run(detector, toy, dataclasses.replace(plan, stop_at_s=9.5), folder)
    assert (paused.finished, paused.iterations, paused.seconds) == ("paused", 8, 10.0)
    trained = run(fresh_detr(), toy, plan, folder)
    assert (trained.finished, trained.iterations, trained.seconds) == ("budget", 18, 20.0)
    assert [p["iteration"] for p in trained.curves if "val" in p] == [9, 14, 18]


def test_a_loss_that_is_no_number_says_what_to_change(toy: Dataset, folder: Path) -> None:
    detector = fresh("detrank/retinanet", MOBILENET)
    wanted = recipe(**SGD | {"phases": (Phase(1, 1e12),), "clip_norm": None})
    with pytest.raises(TrainingDiverged) as failure:
        run(detector, toy, small_plan(detector, 14, wanted, iterations=10), folder)
    assert failure.value.code == "training_diverged"
    assert "lower rate (lr_factor 0.33)" in failure.value.detail
    assert "clips gradients" in failure.value.detail
    assert not (folder / "state.json").exists()  # nothing broken is kept


def out_of_memory_above(detector: Detector, images: int) -> list[int]:
    """Refuse larger batches as a device does; the sizes that were asked for."""
    real, asked = detector.losses, []

    def losses(pictures, targets, **more):
        asked.append(len(pictures))
        if len(pictures) > images:
            raise torch.OutOfMemoryError("no memory")
        return real(pictures, targets, **more)

    detector.losses = losses
    return asked


def two_stage() -> Detector:
    return fresh("detrank/fasterrcnn_fpn", MOBILENET, norm="frozen")


@pytest.mark.parametrize(
    "make",
    [
        two_stage,
        lambda: fresh_detr("detr", dropout=0.0),
        lambda: fresh_detr("conditional_detr", dropout=0.0),
        lambda: fresh_detr("yolos"),
    ],
)
def test_out_of_memory_halves_what_goes_through_at_once_and_no_number(
    make, toy: Dataset, tmp_path: Path
) -> None:
    wanted = recipe(**SGD | {"phases": (Phase(1, 3e-4),), "rois": 8})
    plan = small_plan(make(), 14, wanted, iterations=2, batch_size=7, evaluations=1)
    whole = run(make(), toy, plan, tmp_path / "whole")
    detector, said = make(), []
    asked = out_of_memory_above(detector, 2)
    parts = run(detector, toy, plan, tmp_path / "parts", Watch(log=said.append))
    assert asked == [7, 3, *[1] * 14]
    halved = [line for line in said if "goes on with" in line]
    assert ["goes on with 3" in halved[0], "goes on with 1" in halved[1], len(halved)] == [True, True, 2]
    for one, other in zip(losses_of(whole.curves), losses_of(parts.curves), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    state = json.loads((tmp_path / "parts" / "state.json").read_text())
    assert state["position"]["micro_batch"] == 1  # and is not tried again


def test_not_even_one_image(toy: Dataset, folder: Path) -> None:
    detector = fresh_detr()
    out_of_memory_above(detector, 0)
    with pytest.raises(torch.OutOfMemoryError, match="smaller image_size"):
        run(detector, toy, small_plan(detector, 14), folder)


def test_images_without_objects_train_too(toy: Dataset, folder: Path) -> None:
    detector = two_stage()
    of_image = {i: set(toy.labels[toy.annotation_image_ids == i].tolist()) for i in ids(toy, "train")}
    owner = next(i for i, labels in of_image.items() if len(labels) == 1)
    chosen = toy.annotation_ids[toy.annotation_image_ids == owner]
    trained = run(
        detector,
        toy,
        small_plan(detector, 4, recipe(rois=8), iterations=4),
        folder,
        train=[owner, *[i for i in ids(toy, "train") if i != owner][:3]],
        annotations=chosen.tolist(),
    )
    assert all(math.isfinite(p["loss"]) for p in trained.curves)
    missing = [name for label, name in enumerate(toy.categories) if label not in of_image[owner]]
    assert any("no training object of" in w and all(m in w for m in missing) for w in trained.warnings)
    with pytest.raises(Untrainable, match="no object to learn from"):
        run(detector, toy, small_plan(detector, 4), folder / "other", annotations=[])


def test_without_validation_split_it_says_what_it_took(toy: Dataset, folder: Path) -> None:
    detector = fresh_detr()
    trained = run(detector, toy, small_plan(detector, 14, iterations=1), folder, val=[])
    assert any("no validation split: 1 of the 14" in warning for warning in trained.warnings)
    assert trained.val.images == 1


def test_a_head_for_other_classes_is_replaced_and_one_for_these_stays(toy: Dataset, tmp_path: Path) -> None:
    other = fresh_detr(classes=5)
    run(other, toy, small_plan(other, 14, iterations=1), tmp_path / "a")
    assert other.manifest.num_classes == 3
    kept = fresh_detr()
    head = kept.module.class_labels_classifier
    run(kept, toy, small_plan(kept, 14, iterations=1), tmp_path / "b")
    assert kept.module.class_labels_classifier is head
    named = fresh_detr()
    named.manifest = named.manifest.but(class_names=("cat", "dog", "cow"))
    head = named.module.class_labels_classifier
    run(named, toy, small_plan(named, 14, iterations=1), tmp_path / "c")
    assert named.module.class_labels_classifier is not head


def test_what_cannot_be_trained_is_refused_before_it_starts(toy: Dataset, folder: Path) -> None:
    ssd = fresh("torchvision/ssd300_vgg16")
    with pytest.raises(Untrainable, match="does not run at 64 pixels") as refusal:
        run(ssd, toy, small_plan(ssd, 14), folder)
    assert refusal.value.code == "bad_plan"
    detector = fresh_detr()
    with pytest.raises(Untrainable, match="no boxes"):
        run(detector, dataclasses.replace(toy, supervision="image_labels"), small_plan(detector, 14), folder)


def test_stopping_from_outside_leaves_the_detector_usable(toy: Dataset, folder: Path) -> None:
    class Cancelled(BaseException):
        pass

    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise Cancelled

    detector = two_stage()
    sampler = detector.module.roi_heads.fg_bg_sampler
    with pytest.raises(Cancelled):
        run(detector, toy, small_plan(detector, 14, recipe(rois=8)), folder, Watch(check=check))
    assert detector.module.roi_heads.fg_bg_sampler is sampler
    assert not any(p.requires_grad for p in detector.module.parameters())


def with_masks(toy: Dataset) -> Dataset:
    """Every object's mask is a diamond in its box."""
    diamonds = [
        [[(x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2, x1, (y1 + y2) / 2]]
        for x1, y1, x2, y2 in toy.boxes.tolist()
    ]
    return dataclasses.replace(toy, supervision="masks", segmentations=tuple(diamonds))


def test_a_mask_branch_learns_where_there_are_masks(toy: Dataset, tmp_path: Path) -> None:
    detector = fresh("detrank/maskrcnn_c4", "torchvision/resnet18", norm="frozen")
    wanted = recipe(rois=8, augmentation=Augmentation(flip=0.5, crop=0.5))
    plan = small_plan(detector, 14, wanted, iterations=1, batch_size=2)
    before = weights_of(detector)
    trained = run(detector, with_masks(toy), plan, tmp_path / "masks", val=ids(toy, "val")[:1])
    assert trained.curves[0]["losses"]["loss_mask"] > 0
    assert trained.val.mask is not None
    assert trained.warnings == []
    name = "roi_heads.mask_predictor.mask_fcn_logits.weight"
    assert not np.array_equal(before[name], weights_of(detector)[name])
    without = run(detector, toy, plan, tmp_path / "boxes", val=ids(toy, "val")[:1])
    assert "loss_mask" not in without.curves[0]["losses"]
    assert without.val.mask is None
    assert any("mask branch is not trained" in warning for warning in without.warnings)


def test_a_keypoint_detector_learns_boxes(toy: Dataset, folder: Path) -> None:
    detector = fresh("torchvision/keypointrcnn_resnet50_fpn", frozen_norm=True)
    trained = run(
        detector,
        toy,
        small_plan(detector, 14, recipe(rois=8), iterations=1),
        folder,
        val=ids(toy, "val")[:1],
    )
    assert "loss_keypoint" not in trained.curves[0]["losses"]
    assert detector.module.roi_heads.has_keypoint()
