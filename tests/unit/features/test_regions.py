"""Regions drawn from annotations: where they lie, what they are of, and that nothing but the seed decides."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from deltas import corrected

from worker.data.dataset import Dataset, Image
from worker.features.boxes import ious, shared_areas
from worker.features.errors import Unextractable
from worker.features.objects import objects_of
from worker.features.regions import HARD_FROM, Regions, RegionSampling, regions_of

COLUMNS = ("image_ids", "labels", "objects", "boxes", "deltas", "ious")


def annotated(
    images: list[tuple[int, int, list[list[float]]]], crowds: list[list[float]] | None = None
) -> Dataset:
    """Images given as (width, height, boxes), boxes as [x1, y1, x2, y2, class]; of three classes. Crowds lie in the first."""
    rows = [(number + 1, *box, False) for number, (_, _, boxes) in enumerate(images) for box in boxes]
    rows += [(1, *box, 0, True) for box in crowds or []]
    table = np.array([row[:6] for row in rows], dtype=np.float64)
    return Dataset(
        root=Path("nowhere"),
        categories=("a", "b", "c"),
        supervision="boxes",
        images=tuple(
            Image(number + 1, Path(f"{number}.png"), width, height, "train")
            for number, (width, height, _) in enumerate(images)
        ),
        annotation_ids=np.arange(1, len(rows) + 1),
        annotation_image_ids=table[:, 0].astype(np.int64),
        labels=table[:, 5].astype(np.int64),
        boxes=table[:, 1:5],
        iscrowd=np.array([row[6] for row in rows]),
        digest="annotated",
    )


def scattered(images: int = 12, objects: int = 5, largest: float = 90.0, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(images):
        width, height = ((320, 240), (200, 300))[number % 2]
        sides = rng.uniform(10, largest, (objects, 2))
        low = rng.random((objects, 2)) * ([width, height] - sides)
        labels = rng.integers(0, 3, (objects, 1))
        found.append((width, height, np.concatenate([low, low + sides, labels], axis=1).tolist()))
    return annotated(found)


def drawn(dataset: Dataset, sampling: RegionSampling | None = None, seed: int = 0) -> Regions:
    return regions_of(
        dataset, objects_of(dataset, dataset.images), dataset.images, sampling or RegionSampling(), seed
    )


def assert_same(first: Regions, second: Regions) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def sides(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2:] - boxes[:, :2]


def test_rows_are_of_their_image_and_object():
    dataset = scattered()
    objects, regions = objects_of(dataset, dataset.images), drawn(dataset)
    jittered = regions.jittered
    assert len(regions) == 8 * len(objects)
    assert np.bincount(regions.objects[jittered]).tolist() == [4] * len(objects)
    assert (regions.image_ids[jittered] == objects.image_ids[regions.objects[jittered]]).all()
    assert (regions.labels[jittered] == objects.labels[regions.objects[jittered]]).all()
    assert (regions.labels[~jittered] == 3).all()
    assert (regions.objects[~jittered] == -1).all()
    assert (np.diff(regions.image_ids) >= 0).all()
    assert sorted(np.concatenate(list(regions.rows.values())).tolist()) == list(range(len(regions)))
    for image_id, rows in regions.rows.items():
        assert (regions.image_ids[rows] == image_id).all()
    assert regions.warnings == ()


def test_every_region_lies_in_its_picture_and_is_a_pixel_long():
    dataset = scattered()
    regions = drawn(dataset, RegionSampling(hard=0.5))
    extent = {image.id: (image.width, image.height) for image in dataset.images}
    high = np.array([extent[key] for key in regions.image_ids.tolist()])
    assert (regions.boxes >= 0).all()
    assert (regions.boxes[:, 2:] <= high).all()
    assert (sides(regions.boxes) >= 1).all()


def test_jittered_boxes_overlap_theirs_over_the_whole_range_and_lead_back_to_it():
    dataset = scattered(images=40)
    true, regions = objects_of(dataset, dataset.images).boxes, drawn(dataset)
    jittered = regions.jittered
    own, found = true[regions.objects[jittered]], regions.boxes[jittered]
    np.testing.assert_allclose(regions.ious[jittered], ious(found, own), atol=1e-12)
    assert regions.ious[jittered].min() >= 0.5
    assert (found != own).any(axis=1).all()
    np.testing.assert_allclose(corrected(found, regions.deltas[jittered]), own, atol=1e-10)
    assert np.isnan(regions.deltas[~jittered]).all()
    # As docs/extraction.md says: spread over the range, the deltas about as wide as R-CNN's constants take them to be.
    shares = np.histogram(regions.ious[jittered], 5, (0.5, 1))[0] / jittered.sum()
    assert shares.min() > 0.12
    assert regions.ious[jittered].mean() == pytest.approx(0.735, abs=0.02)
    np.testing.assert_allclose(regions.deltas[jittered].std(axis=0), [0.1, 0.1, 0.14, 0.14], atol=0.015)
    np.testing.assert_allclose(regions.deltas[jittered].mean(axis=0), 0, atol=0.03)


def test_extents_bound_the_jitter():
    dataset = annotated([(400, 400, [[100, 100, 180, 160, 0]])])
    regions = drawn(dataset, RegionSampling(jittered=64, background=0, shift=0.1, scale=0.0))
    deltas = regions.deltas
    assert np.abs(deltas[:, :2]).max() <= 0.1 + 1e-12
    assert np.abs(deltas[:, :2]).max() > 0.05
    assert np.abs(deltas[:, 2:]).max() < 1e-12
    scaled = drawn(dataset, RegionSampling(jittered=64, background=0, shift=0.0, scale=0.3)).deltas
    assert np.abs(scaled[:, :2]).max() < 1e-12
    assert 0.15 < np.abs(scaled[:, 2:]).max() <= 0.3 + 1e-12


def test_a_high_least_overlap_is_met_by_smaller_moves():
    dataset = scattered()
    regions = drawn(dataset, RegionSampling(min_iou=0.97, max_iou=0.3))
    assert regions.ious[regions.jittered].min() >= 0.97
    assert (regions.ious[regions.jittered] < 1).all()
    assert regions.jittered.sum() == 4 * 60


def test_background_overlaps_no_annotated_box_crowds_and_dropped_ones_too():
    crowd, line = [20.0, 20, 190, 230], [200.0, 100, 200, 180]
    dataset = annotated(
        [
            (320, 240, [[200, 10, 240, 60, 0], [250, 150, 310, 230, 1], [*line, 2]]),
            (320, 240, [[5, 5, 60, 60, 1]]),
        ],
        crowds=[crowd],
    )
    regions = drawn(dataset, RegionSampling(background=64, hard=0.25))
    background = ~regions.jittered
    boxes, of_first = regions.boxes[background], regions.image_ids[background] == 1
    for box in dataset.boxes[dataset.annotation_image_ids == 1]:
        assert (ious(boxes[of_first], box) < 0.3).all()
    within = shared_areas(boxes, np.array(crowd)) / sides(boxes).prod(axis=1)
    assert (within[of_first] < 0.3).all()
    assert (within[~of_first] > 0.9).any(), "in another image it is free"
    assert (regions.ious[background] < 0.3).all()


def test_overlaps_of_background_are_the_highest_with_any():
    dataset = scattered(images=3)
    regions = drawn(dataset, RegionSampling(hard=0.5))
    for image_id, rows in regions.rows.items():
        boxes = dataset.boxes[dataset.annotation_image_ids == image_id]
        rows = rows[~regions.jittered[rows]]
        np.testing.assert_allclose(
            regions.ious[rows], ious(regions.boxes[rows, None], boxes).max(axis=1), atol=1e-12
        )


def test_background_has_the_sizes_of_the_objects_relative_to_their_images():
    dataset = scattered(images=60, objects=3, largest=70)
    regions = drawn(dataset, RegionSampling(hard=0.0))
    extent = {image.id: (image.width, image.height) for image in dataset.images}
    relative = sides(regions.boxes) / np.array([extent[key] for key in regions.image_ids.tolist()])
    normalised = objects_of(dataset, dataset.images).normalised
    for axis in range(2):
        wanted = np.quantile(sides(normalised)[:, axis], [0.1, 0.5, 0.9])
        found = np.quantile(relative[~regions.jittered, axis], [0.1, 0.5, 0.9])
        np.testing.assert_allclose(found, wanted, atol=0.03)
    pool = {tuple(row) for row in sides(normalised).round(9).tolist()}
    assert {tuple(row) for row in relative[~regions.jittered].round(9).tolist()} <= pool


def test_background_lies_everywhere():
    dataset = annotated([(400, 300, [[190, 140, 210, 160, 0]])] * 30)
    regions = drawn(dataset, RegionSampling(background=20))
    corner = regions.boxes[~regions.jittered, :2]
    assert (corner.min(axis=0) < [15, 15]).all()
    assert (corner.max(axis=0) > [365, 265]).all()
    np.testing.assert_allclose(corner.mean(axis=0), [190, 140], atol=12)


@pytest.mark.parametrize("hard", [0.25, 1.0])
def test_hard_background_lies_beside_an_object(hard):
    dataset = scattered(objects=3)
    regions = drawn(dataset, RegionSampling(hard=hard))
    easy = drawn(dataset, RegionSampling(hard=0.0))
    covering = [(found.ious[~found.jittered] >= HARD_FROM).mean() for found in (regions, easy)]
    assert covering[0] >= hard
    assert covering[0] > covering[1] + 0.1
    assert regions.ious[~regions.jittered].max() < 0.3
    assert (~regions.jittered).sum() == 12 * 12
    np.testing.assert_array_equal(regions.boxes[regions.jittered], easy.boxes[easy.jittered])


def test_the_seed_alone_decides():
    dataset = scattered()
    sampling = RegionSampling(hard=0.25)
    whole = drawn(dataset, sampling, seed=4)
    assert_same(whole, drawn(dataset, sampling, seed=4))
    objects = objects_of(dataset, dataset.images)
    assert_same(whole, regions_of(dataset, objects, dataset.images[::-1], sampling, 4))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: drawn(dataset, sampling, seed=4), range(8)):
            assert_same(whole, found)
    other = drawn(dataset, sampling, seed=5)
    assert not (other.boxes == whole.boxes).all(axis=1).any()


def test_a_region_depends_on_its_own_image_alone():
    dataset, sampling = scattered(), RegionSampling(background=2, hard=1.0)
    objects = objects_of(dataset, dataset.images)
    whole = regions_of(dataset, objects, dataset.images, sampling, 4)
    few = regions_of(dataset, objects, dataset.images[3:7:2], sampling, 4)
    assert set(few.rows) == {4, 6}
    for image_id, rows in few.rows.items():
        np.testing.assert_array_equal(few.boxes[rows], whole.boxes[whole.rows[image_id]])


def test_equal_images_have_regions_of_their_own():
    dataset = annotated([(200, 200, [[50, 60, 90, 120, 0]])] * 2)
    regions = drawn(dataset, RegionSampling(hard=0.5))
    first, second = (regions.boxes[regions.rows[image_id]] for image_id in (1, 2))
    assert not (first == second).all(axis=1).any()


def test_more_background_leaves_the_jittered_as_they_are():
    few, many = (drawn(scattered(), RegionSampling(background=count)) for count in (1, 9))
    np.testing.assert_array_equal(few.boxes[few.jittered], many.boxes[many.jittered])


def test_boxes_of_a_pixel_and_less_are_moved_too():
    boxes = [
        [0, 0, 1, 1, 0],
        [99, 49, 100, 50, 1],
        [40, 0, 41, 50, 2],
        [10.0, 10, 10.4, 10.3, 0],
        [0, 30, 100, 31, 1],
    ]
    dataset = annotated([(100, 50, boxes)])
    regions = drawn(dataset, RegionSampling(jittered=16))
    jittered = regions.jittered
    own = dataset.boxes[regions.objects[jittered]]
    found = regions.boxes[jittered]
    assert (regions.ious[jittered] >= 0.5).all()
    assert (found != own).any(axis=1).all()
    assert (sides(found) >= np.minimum(sides(own), 1) - 1e-9).all()
    assert (sides(regions.boxes[~jittered]) >= 1 - 1e-9).all()
    assert (found[:, 2:] <= [100, 50]).all()
    np.testing.assert_allclose(corrected(found, regions.deltas[jittered]), own, atol=1e-10)


def test_a_box_over_the_whole_picture_shrinks_and_leaves_no_background():
    dataset = annotated([(64, 48, [[0, 0, 64, 48, 1]]), (64, 48, [[10, 10, 20, 20, 0]])])
    regions = drawn(dataset, RegionSampling(hard=0.0))
    full = regions.rows[1]
    assert regions.jittered[full].sum() == 4
    assert (regions.boxes[full][:4] != [0, 0, 64, 48]).any(axis=1).all()
    small = sides(regions.boxes[full][4:])
    assert (small.prod(axis=1) < 0.3 * 64 * 48).all(), "only the small object's size finds a place"
    alone = drawn(annotated([(64, 48, [[0, 0, 64, 48, 1]])]), RegionSampling(hard=0.0))
    assert alone.jittered.all()
    assert any("4 of 4 background regions found no place" in warning for warning in alone.warnings)


def test_a_picture_of_one_pixel_has_its_object_alone():
    regions = drawn(annotated([(1, 1, [[0, 0, 1, 1, 0]])]))
    np.testing.assert_array_equal(regions.boxes, [[0, 0, 1, 1]] * 4)
    assert (regions.ious == 1).all()
    assert (regions.deltas == 0).all()


def test_a_crowded_picture_is_bounded_and_said():
    rng = np.random.default_rng(0)
    low = rng.random((300, 2)) * 360
    crowded = np.concatenate([low, low + 30, np.zeros((300, 1))], axis=1).tolist()
    dataset = annotated([(400, 400, crowded), (400, 400, crowded[:3])])
    regions = drawn(dataset)
    first = regions.rows[1]
    assert regions.jittered[first].sum() == 256
    assert len(np.unique(regions.objects[first][:256])) == 64
    assert len(first) <= 512
    assert any("1 images hold more than 64 objects" in warning for warning in regions.warnings)
    others = drawn(dataset, seed=1)
    assert set(others.objects[others.rows[1]]) != set(regions.objects[first])
    missing = 67 * 4 - int((~regions.jittered).sum())
    said = [warning for warning in regions.warnings if "found no place" in warning]
    assert bool(said) == bool(missing)
    assert not said or said[0].startswith(f"{missing} of 268")


def test_a_wall_of_boxes_gives_what_room_there_is_and_counts_the_rest():
    wall = [[x, y, x + 20, y + 20, 0] for x in range(0, 200, 20) for y in range(0, 200, 20)]
    dataset = annotated([(200, 200, wall)])
    regions = drawn(dataset, RegionSampling(max_iou=0.15))
    missing = 64 * 4 - int((~regions.jittered).sum())
    assert missing > 0
    assert any(warning.startswith(f"{missing} of 256 background") for warning in regions.warnings)


def test_images_without_objects_have_no_regions():
    dataset = annotated([(100, 100, [[10, 10, 30, 30, 0]]), (100, 100, [])])
    assert set(drawn(dataset).rows) == {1}


@pytest.mark.parametrize(
    "change",
    [
        {"jittered": 0},
        {"jittered": 65},
        {"background": -1},
        {"background": 65},
        {"hard": -0.1},
        {"hard": 1.1},
        {"shift": -1.0},
        {"shift": 0.0, "scale": 0.0},
        {"scale": float("nan")},
        {"min_iou": 1.0},
        {"min_iou": 0.2},
        {"max_iou": 0.0},
        {"max_objects": 0},
        {"hard": 0.5, "max_iou": 0.05},
    ],
)
def test_nonsense_is_refused_with_what_would_do(change):
    with pytest.raises(Unextractable) as caught:
        RegionSampling(**change)
    assert caught.value.code == "bad_region_sampling"
    assert any(name in caught.value.detail for name in change)
    usual = dataclasses.asdict(RegionSampling())
    assert (usual["jittered"], usual["background"], usual["hard"]) == (4, 4, 0.25)
