"""A dataset with pseudo boxes, and what a teacher saw in files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from knowing import of, split

from worker.data.dataset import Dataset, open_dataset
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.derived import derive
from worker.pseudo_boxes.looked import Looked, key_of, save
from worker.pseudo_boxes.pseudo_boxes import Unteachable


def said(toy: Dataset, ids: list[int]) -> dict[int, Prediction]:
    """Every object, a little too large, some over the border."""
    return {
        id: Prediction(
            id, toy.boxes[of(toy, id)] + [-3, -3, 30, 3], np.array([0.75, 0.5]), toy.labels[of(toy, id)]
        )
        for id in ids
    }


def derived(
    toy: Dataset, found: dict[int, Prediction], out: Path, splits: tuple[str, ...] = ("train",)
) -> Dataset:
    out.mkdir()
    derive(toy, toy.categories, found, splits, out, description="pseudo", lineage={"teacher": "detector"})
    return open_dataset(out)


def test_pictures_of_the_splits_get_pseudo_boxes_and_the_others_keep_what_people_drew(
    toy: Dataset, tmp_path: Path
) -> None:
    train = split(toy, "train")
    made = derived(toy, said(toy, train[:5]), tmp_path / "out")
    assert (made.supervision, made.has_boxes) == ("pseudo_boxes", True)
    assert [image.split for image in made.images].count("train") == 5
    assert [image.split for image in made.images].count("val") == len(split(toy, "val"))
    pseudo = ~np.isnan(made.scores)
    assert sorted(set(made.scores[pseudo].tolist())) == [0.5, 0.75]
    assert pseudo.sum() == 10
    splits = {image.id: image.split for image in made.images}
    assert {splits[int(id)] for id in made.annotation_image_ids[pseudo]} == {"train"}
    assert made.boxes.min() >= 0
    assert made.boxes.max() <= 64
    info = json.loads((made.root / "annotations.json").read_text())["info"]
    assert info["lineage"] == {"teacher": "detector"}
    report = json.loads((made.root / "report.json").read_text())
    assert report["counts"] == {"no_pseudo_box": len(train) - 5}


def test_the_digest_follows_boxes_and_scores(toy: Dataset, tmp_path: Path) -> None:
    found = said(toy, split(toy, "train")[:2])
    one = derived(toy, found, tmp_path / "one")
    assert derived(toy, found, tmp_path / "same").digest == one.digest
    surer = {id: replace(each, scores=each.scores + 0.1) for id, each in found.items()}
    assert derived(toy, surer, tmp_path / "surer").digest != one.digest


def test_a_picture_that_its_labels_call_empty_stays_as_background(toy: Dataset, tmp_path: Path) -> None:
    train = split(toy, "train")
    empty = train[3]
    kept = ~of(toy, empty)
    columns = ("annotation_ids", "annotation_image_ids", "labels", "boxes", "iscrowd")
    labelled = replace(
        toy, supervision="image_labels", **{name: getattr(toy, name)[kept] for name in columns}
    )
    made = derived(labelled, said(toy, train[:2]), tmp_path / "out")
    assert len(made.images) == 3
    assert len(set(made.annotation_image_ids.tolist())) == 2


def test_without_a_pseudo_box_there_is_no_dataset(toy: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Unteachable, match="no picture has a pseudo box"):
        derived(toy, {}, tmp_path / "out")


def test_what_was_seen_is_read_back_picture_by_picture(tmp_path: Path) -> None:
    seen = {
        7: {"boxes": np.ones((2, 4), np.float32), "scores": np.zeros(2)},
        3: {"boxes": np.zeros((0, 4), np.float32)},
        5: {},
    }
    save(tmp_path / "one.safetensors", {id: seen[id] for id in (7, 5)})
    save(tmp_path / "two.safetensors", {3: seen[3]})
    looked = Looked([tmp_path / "one.safetensors", tmp_path / "two.safetensors"])
    assert list(looked) == [3, 5, 7]
    assert looked[5] == {}
    assert looked[3]["boxes"].shape == (0, 4)
    np.testing.assert_array_equal(looked[7]["boxes"], seen[7]["boxes"])
    (tmp_path / "two.safetensors").write_bytes(b"cut off")
    with pytest.raises(Unteachable) as refusal:
        Looked([tmp_path / "two.safetensors"])
    assert refusal.value.code == "broken_file"
    assert (
        len({key_of("a", "b", 0, 2), key_of("a", "b", 1, 2), key_of("a", "c", 0, 2), key_of("b", "b", 0, 2)})
        == 4
    )
