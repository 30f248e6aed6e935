"""A dataset with pseudo boxes as a person corrected it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from knowing import of, split
from test_derived_dataset import derived, said

from worker.data.dataset import Dataset, open_dataset
from worker.pseudo_boxes.pseudo_boxes import Unteachable
from worker.pseudo_boxes.revised import revised


@pytest.fixture
def pseudo(toy: Dataset, tmp_path: Path) -> Dataset:
    return derived(toy, said(toy, split(toy, "train")[:3]), tmp_path / "pseudo")


def rows(dataset: Dataset, image_id: int) -> list[tuple[str, list[float], float | None]]:
    return [
        (
            dataset.categories[dataset.labels[row]],
            dataset.boxes[row].round(2).tolist(),
            None if np.isnan(dataset.scores[row]) else round(float(dataset.scores[row]), 4),
        )
        for row in np.flatnonzero(dataset.annotation_image_ids == image_id)
    ]


def made(source: Dataset, changes: dict, out: Path) -> Dataset:
    out.mkdir()
    revised(source, changes, out, description="reviewed", lineage={"teacher": "detector"})
    return open_dataset(out)


def test_corrected_boxes_stand_where_they_were_put_and_rejected_ones_are_gone(
    pseudo: Dataset, tmp_path: Path
) -> None:
    image = next(image for image in pseudo.images if image.split == "train")
    first, second = pseudo.annotation_ids[of(pseudo, image.id)].tolist()
    category = pseudo.categories[0]
    changes = {first: None, second: {"bbox": [-4.0, 8.0, 24.0, 500.0], "category": category}}
    found = made(pseudo, changes, tmp_path / "out")
    assert rows(found, image.id) == [(category, [0.0, 8.0, 20.0, float(image.height)], None)]
    others = [one.id for one in pseudo.images if one.id != image.id]
    assert [rows(found, id) for id in others] == [rows(pseudo, id) for id in others]
    assert [(one.split, one.width) for one in found.images] == [
        (one.split, one.width) for one in pseudo.images
    ]
    assert (found.supervision, found.digest != pseudo.digest) == ("pseudo_boxes", True)


def test_a_picture_without_its_last_box_is_left_out(pseudo: Dataset, tmp_path: Path) -> None:
    image = next(image for image in pseudo.images if image.split == "train")
    gone = dict.fromkeys(pseudo.annotation_ids[of(pseudo, image.id)].tolist())
    assert len(made(pseudo, gone, tmp_path / "out").images) == len(pseudo.images) - 1


def test_what_cannot_be_made_is_refused(pseudo: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Unteachable) as refusal:
        made(pseudo, {10_000: None}, tmp_path / "strange")
    assert refusal.value.code == "unknown_box"
    alone = dataclasses.replace(pseudo, images=pseudo.images[:1])
    ids = pseudo.annotation_ids[of(pseudo, pseudo.images[0].id)].tolist()
    with pytest.raises(Unteachable) as refusal:
        made(alone, dict.fromkeys(ids), tmp_path / "empty")
    assert refusal.value.code == "no_pseudo_boxes"
