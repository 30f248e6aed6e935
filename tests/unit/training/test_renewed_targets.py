"""A mean teacher: the averaged weights say anew what is learned of pictures without labels, and a pause changes nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import fresh_detr, ids, losses_of, recipe, small_plan, weights_of

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction
from worker.training.errors import Untrainable
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids, Renewal, Watch
from worker.training.plan import Plan
from worker.training.trained import Trained

BOX = [1.0, 2.0, 30.0, 40.0]


def run(
    detector: Detector,
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    renewal: Renewal | None,
    watch: Watch = Watch(),
) -> Trained:
    found = Ids(ids(dataset, "train"), ids(dataset, "val")[:2], [])
    return train(detector, dataset, plan, found, folder, Host(save_every_s=1e9), watch, renewal)


def plan_for(detector: Detector, **changes: Any) -> Plan:
    wanted = recipe(ema=0.5, data_dependent_init=False)
    return small_plan(
        detector, 14, wanted, **{"iterations": 4, "evaluations": 1, "renewed_from": 0.5} | changes
    )


def test_from_its_share_on_the_averaged_weights_say_what_is_learned(toy: Dataset, folder: Path) -> None:
    detector = fresh_detr(dropout=0.0)
    name = "class_labels_classifier.weight"
    mine = frozenset(ids(toy, "train")[:7])
    asked: list[tuple[int, int]] = []
    averages, learned = [detector.module.get_parameter(name).detach().clone()], []
    seen_with: list[torch.Tensor] = []
    step = [0]

    def objects(found: Prediction) -> Prediction:
        asked.append((step[0], found.image_id))
        torch.testing.assert_close(seen_with[-1], averages[-1])
        return Prediction(found.image_id, np.array([BOX]), np.ones(1), np.array([2]))

    def progress(done: int, total: int | None, message: str) -> None:
        step[0] = done
        decay = min(0.5, (1 + done) / (10 + done))
        now = detector.module.get_parameter(name).detach()
        averages.append(decay * averages[-1] + (1 - decay) * now)

    losses, predictions = detector.losses, detector.predictions

    def seen(images: Any, **options: Any) -> Any:
        seen_with.append(detector.module.get_parameter(name).detach().clone())
        return predictions(images, **options)

    def told(images: Any, targets: Any, **options: Any) -> Any:
        learned.extend((step[0], target["boxes"].tolist(), target["labels"].tolist()) for target in targets)
        return losses(images, targets, **options)

    detector.losses, detector.predictions = told, seen  # type: ignore[method-assign]
    plan = plan_for(detector, batch_size=7)
    run(detector, toy, plan, folder, Renewal(mine, objects), Watch(progress=progress))
    assert {when for when, _ in asked} == {2, 3}
    # an epoch is two batches: each of its pictures once
    assert sorted(image_id for _, image_id in asked) == sorted(mine)
    renewed = [(when, boxes, labels) for when, boxes, labels in learned if boxes == [BOX]]
    assert [when for when, _ in asked] == [when for when, _, _ in renewed]
    assert all(labels == [2] for _, _, labels in renewed)
    assert len(learned) == 28


def test_a_pause_changes_nothing(toy: Dataset, tmp_path: Path) -> None:
    def objects(found: Prediction) -> Prediction:
        """What follows from the weights to the last digit: the two surest boxes of an untrained network."""
        best = np.argsort(-found.scores, kind="stable")[:2]
        return Prediction(found.image_id, found.boxes[best], found.scores[best], found.labels[best])

    renewal = Renewal(frozenset(ids(toy, "train")[:9]), objects)
    plan = plan_for(fresh_detr())
    whole = run(fresh_detr(), toy, plan, tmp_path / "whole", renewal)
    for stop in (1, 3):
        paused = dataclasses.replace(plan, stop_at_iterations=stop)
        assert run(fresh_detr(), toy, paused, tmp_path / "parts", renewal).finished == "paused"
    parts = run(fresh_detr(), toy, plan, tmp_path / "parts", renewal)
    for one, other in zip(losses_of(whole.curves), losses_of(parts.curves), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)
    theirs = weights_of(parts.detector)
    assert all(
        np.allclose(tensor, theirs[name], atol=1e-7) for name, tensor in weights_of(whole.detector).items()
    )


def test_what_does_not_go_together_is_refused(toy: Dataset, folder: Path) -> None:
    detector = fresh_detr()
    with pytest.raises(Untrainable, match="averaged weights"):
        small_plan(detector, 14, recipe(ema=0.0), renewed_from=0.5)
    with pytest.raises(Untrainable, match="who says them"):
        run(detector, toy, plan_for(detector), folder, None)
