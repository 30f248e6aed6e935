"""The teacher `detector`: its classes, its confidence, and a student's pictures."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from knowing import Knowing, of, split

from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes import detector
from worker.pseudo_boxes.detector import CONFIDENCE, DetectorTeacher
from worker.pseudo_boxes.geometry import plausible
from worker.pseudo_boxes.pseudo_boxes import PseudoBoxes, Unteachable, Watching
from worker.pseudo_boxes.self_training import pseudo_labelled, with_unlabelled


def unread() -> Any:
    """A detector that is not asked anything: what it finds is said by `Knowing`."""
    return SimpleNamespace(module=torch.nn.Identity(), manifest=SimpleNamespace(weights_sha256="0" * 64))


def said(teacher: DetectorTeacher, dataset: Dataset, ids: list[int]) -> PseudoBoxes:
    images = [image for image in dataset.images if image.id in ids]
    looked = {image.id: arrays for image, arrays in teacher.look(images, Watching())}
    assert sorted(looked) == sorted(ids)
    return teacher.say(dataset, looked, Watching())


def test_lines_specks_and_second_boxes_of_an_object_are_none() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 60, 1], [5, 5, 6, 6], [30, 30, 50, 50.0]])
    found = plausible(Prediction(1, boxes, np.array([0.5, 0.9, 0.9, 0.9, 0.2]), np.array([0, 0, 0, 0, 0])))
    np.testing.assert_array_equal(found.boxes, boxes[[1, 4]])
    # of two classes both may be right
    found = plausible(Prediction(1, boxes[:2], np.array([0.5, 0.9]), np.array([0, 1])))
    assert len(found.boxes) == 2


def test_the_confidence_is_chosen_on_validation(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "predictions_of", Knowing(toy))
    train, val = split(toy, "train")[:3], split(toy, "val")
    found = said(DetectorTeacher(unread(), {0: 0, 1: 1}), toy, train + val)
    assert found.about == {"confidence": 0.8, "f1_on_validation": 1.0}
    assert found.boxes == 2 * len(train + val)
    given = said(DetectorTeacher(unread(), {0: 0, 1: 1}, confidence=0.2), toy, train + val)
    assert given.boxes == 3 * len(train + val)
    assert given.about["confidence"] == 0.2
    without = said(DetectorTeacher(unread(), {0: 0, 1: 1}), replace(toy, supervision="none"), train)
    assert without.about == {"confidence": CONFIDENCE, "f1_on_validation": None}
    # nor is there an F1 where no validation picture has an object
    bare = ~np.isin(toy.annotation_image_ids, val)
    empty = replace(
        toy,
        annotation_ids=toy.annotation_ids[bare],
        annotation_image_ids=toy.annotation_image_ids[bare],
        labels=toy.labels[bare],
        boxes=toy.boxes[bare],
        iscrowd=toy.iscrowd[bare],
    )
    unseen = said(DetectorTeacher(unread(), {0: 0, 1: 1}), empty, train + val)
    assert unseen.about == {"confidence": CONFIDENCE, "f1_on_validation": None}


def test_its_classes_become_those_of_the_dataset(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "predictions_of", Knowing(toy))
    ids = split(toy, "train")[:2]
    found = said(DetectorTeacher(unread(), {1: 0}, confidence=0.5), toy, ids)
    for id in ids:
        own = of(toy, id) & (toy.labels == 1)
        np.testing.assert_allclose(found.found[id].boxes, toy.boxes[own] + 1)
        assert found.found[id].labels.tolist() == [0]
    keys = {DetectorTeacher(unread(), each).key for each in ({1: 0}, {0: 0}, {0: 0, 1: 1})}
    assert len(keys) == 3


def test_image_labels_rule_out_other_classes(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "predictions_of", Knowing(toy))
    only_red = toy.labels == 0
    labelled = replace(
        toy,
        supervision="image_labels",
        annotation_ids=toy.annotation_ids[only_red],
        annotation_image_ids=toy.annotation_image_ids[only_red],
        labels=toy.labels[only_red],
        boxes=toy.boxes[only_red],
        iscrowd=toy.iscrowd[only_red],
    )
    found = said(DetectorTeacher(unread(), {0: 0, 1: 1}), labelled, split(toy, "train")[:2])
    assert {label for each in found.found.values() for label in each.labels.tolist()} == {0}


def test_pictures_get_pseudo_boxes_in_place_of_labels_nobody_looked_at(
    toy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "predictions_of", Knowing(toy))
    train = split(toy, "train")
    labelled, unlabelled = train[:4], train[4:]
    made = pseudo_labelled(
        unread(),
        toy,
        labelled_ids=labelled,
        unlabelled_ids=unlabelled,
        val_ids=split(toy, "val"),
        image_size=None,
    )
    assert made.image_ids == tuple(sorted(unlabelled))
    assert (made.confidence, made.boxes) == (0.8, 2 * len(unlabelled))
    one = unlabelled[0]
    np.testing.assert_allclose(made.dataset.boxes[of(made.dataset, one)], toy.boxes[of(toy, one)] + 1)
    for kept in (labelled[0], split(toy, "test")[0]):
        np.testing.assert_array_equal(made.dataset.boxes[of(made.dataset, kept)], toy.boxes[of(toy, kept)])
    learned = set(made.annotation_ids)
    assert len(learned) == 2 * len(train)
    assert len(set(made.dataset.annotation_ids.tolist())) == len(made.dataset.annotation_ids)
    assert learned <= set(made.dataset.annotation_ids.tolist())


def test_pictures_of_another_dataset_get_ids_and_pseudo_boxes_of_their_own(
    toy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [replace(image, split="test") for image in toy.images if image.split == "train"][:5]
    joined, ids = with_unlabelled(toy, more, "another digest")
    own = [image.id for image in toy.images]
    assert min(ids) > max(own)
    assert [(image.path, image.split) for image in joined.images[len(own) :]] == [
        (image.path, "train") for image in more
    ]
    # another choice of pictures is another dataset to whoever keeps something by its digest
    digests = {
        each[0].digest for each in (with_unlabelled(toy, more[:4], "x"), with_unlabelled(toy, more, "x"))
    }
    assert len({*digests, joined.digest, toy.digest}) == 4

    boxes = toy.boxes[of(toy, more[0].id)]
    known = replace(
        joined, annotation_image_ids=np.where(of(toy, more[0].id), ids[0], toy.annotation_image_ids)
    )
    monkeypatch.setattr(detector, "predictions_of", Knowing(known))
    looks = []

    def look(asks: DetectorTeacher, images: list[Any], watching: Watching) -> Any:
        looks.append([image.id for image in images])
        return {image.id: arrays for image, arrays in asks.look(images, watching)}

    made = pseudo_labelled(
        unread(),
        joined,
        labelled_ids=split(toy, "train")[5:],
        unlabelled_ids=ids,
        val_ids=split(toy, "val"),
        image_size=None,
        look=look,
    )
    assert looks == [[*split(toy, "val"), *ids]]
    assert made.image_ids == ids[:1]
    np.testing.assert_allclose(made.dataset.boxes[of(made.dataset, ids[0])], boxes + 1)
    # those that the dataset has stay as they are
    assert of(made.dataset, own[0]).sum() == of(toy, own[0]).sum()


def test_a_teacher_that_knows_nothing_is_said_to(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(detector, images, *_, **__) -> list[Prediction]:
        return [Prediction(i.id, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)) for i in images]

    monkeypatch.setattr(detector, "predictions_of", nothing)
    train = split(toy, "train")
    with pytest.raises(Unteachable) as refusal:
        pseudo_labelled(
            unread(),
            toy,
            labelled_ids=train[:4],
            unlabelled_ids=train[4:],
            val_ids=split(toy, "val"),
            image_size=None,
        )
    assert refusal.value.code == "no_pseudo_boxes"
