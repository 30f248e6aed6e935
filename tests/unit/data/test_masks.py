"""Masks from the canonical form: the same pixels as pycocotools', and nothing that its C code would stumble over."""

import json
from pathlib import Path

import numpy as np
import pytest
from hand_made import picture, text
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference

from worker.data.dataset import open_dataset
from worker.data.ingest import ingest
from worker.data.masks import area, decode, encode, rle_of, rles_of
from worker.data.run_lengths import run_lengths

SIZE = (30, 40)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_every_way_of_writing_a_mask_is_the_same_mask(
    seed: int, height: int, width: int, filled: float
) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < filled).astype(np.uint8)
    packed = reference.encode(np.asfortranarray(mask))
    runs = run_lengths(packed["counts"], mask.size)
    assert run_lengths(packed["counts"].decode(), mask.size) == runs
    assert run_lengths(runs, mask.size) == runs
    assert encode(mask[None])[0] == packed
    for counts in (runs, packed["counts"], packed["counts"].decode()):
        rle = rle_of({"size": [height, width], "counts": counts}, height, width)
        assert np.array_equal(decode([rle], height, width)[0], mask)
        assert area(rle) == mask.sum()


def test_polygons_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        polygons = [
            rng.uniform(-5, 45, size=2 * rng.integers(3, 8)).tolist() for _ in range(rng.integers(1, 4))
        ]
        wanted = reference.decode(reference.merge(reference.frPyObjects(polygons, *SIZE)))
        assert np.array_equal(decode([rle_of(polygons, *SIZE)], *SIZE)[0], wanted)


def test_corners_far_away_cost_nothing() -> None:
    everything = [[-1e12, -1e12, 1e12, -1e12, 1e12, 1e12, -1e12, 1e12]]
    assert area(rle_of(everything, *SIZE)) == SIZE[0] * SIZE[1]


@pytest.mark.parametrize(
    "counts",
    [
        [1200, -1, 1],
        [1199],
        [1201],
        [600.0, 600],
        [True, 1199],
        "",
        "~~~",
        "0",
        "\u00e9\u00e9",
        "P" * 40,
        "000P",
        b"\xff\xff",
        [[600, 600]],
        "oooooooooooooooooooooooo",
    ],
)
def test_broken_run_lengths_are_refused(counts) -> None:
    with pytest.raises(ValueError, match=r"run"):
        run_lengths(counts, SIZE[0] * SIZE[1])
    with pytest.raises(ValueError, match=r"run"):
        rle_of({"size": list(SIZE), "counts": counts}, *SIZE)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="40"):
        rle_of({"size": [40, 30], "counts": [1200]}, *SIZE)


def coco(folder: Path, segmentations: list, crowds: tuple[int, ...] = ()) -> None:
    height, width = SIZE
    picture(folder / "images/a.png", width, height, 1)
    picture(folder / "images/b.png", width, height, 2)
    rows = [
        {
            "id": i,
            "image_id": 1 + i % 2,
            "category_id": 1,
            "bbox": [i, 2, 9, 9],
            "iscrowd": int(i in crowds),
            **({"segmentation": s} if s is not None else {}),
        }
        for i, s in enumerate(segmentations)
    ]
    images = [
        {"id": i, "file_name": f"images/{n}.png", "width": width, "height": height}
        for i, n in ((1, "a"), (2, "b"))
    ]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "x"}]}
    text(folder / "instances.json", json.dumps(content))


SQUARE = [[2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]]


def test_masks_of_an_image_follow_its_annotations(tmp_path: Path) -> None:
    rle = {"size": list(SIZE), "counts": [300, 30, 870]}
    coco(tmp_path / "in", [SQUARE, rle, rle, None], crowds=(3,))
    assert ingest(tmp_path / "in", tmp_path / "out").supervision == "masks"
    dataset = open_dataset(tmp_path / "out")
    total = 0
    for image in dataset.images:
        rows = np.flatnonzero(dataset.annotation_image_ids == image.id)
        masks = decode(rles_of(dataset, image), image.height, image.width)
        assert masks.shape == (len(rows), *SIZE)
        assert masks.dtype == np.uint8
        assert len(rles_of(dataset, image)) == len(rows)
        for row, mask in zip(rows, masks, strict=True):
            segmentation = dataset.segmentations[row]
            expected = {list: 36, dict: 30, type(None): 81}[
                type(segmentation)
            ]  # the crowd without one is its box
            assert mask.sum() == expected
        total += len(rows)
    assert total == 4


def test_boxes_have_no_masks(tmp_path: Path) -> None:
    coco(tmp_path / "in", [SQUARE, None])
    assert ingest(tmp_path / "in", tmp_path / "out").supervision == "boxes"
    dataset = open_dataset(tmp_path / "out")
    assert dataset.segmentations is None
    with pytest.raises(ValueError, match="no masks"):
        rles_of(dataset, dataset.images[0])


def test_broken_run_lengths_are_found_when_a_dataset_comes_in(tmp_path: Path) -> None:
    coco(tmp_path / "in", [SQUARE, {"size": list(SIZE), "counts": "P" * 40}])
    found = ingest(tmp_path / "in", tmp_path / "out")
    assert found.report["counts"] == {"invalid_mask": 1}
    assert found.supervision == "boxes"


def test_nothing_is_an_array_too() -> None:
    assert decode([], *SIZE).shape == (0, *SIZE)
    assert encode(np.zeros((0, *SIZE))) == []
