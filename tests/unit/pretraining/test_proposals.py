"""Regions of pictures nobody labelled: found, kept, and drawn from anew each epoch."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.squares import squares
from worker.data.dataset import Image
from worker.data.pictures import read_rgb
from worker.pretraining import proposals
from worker.pretraining.errors import Unpretrainable
from worker.pretraining.proposals import STRATEGIES, chosen, key_of, load, part_of, proposed, save
from worker.pretraining.selective_search import SIDE, selective_search


def scene(seed: int = 0, size: tuple[int, int] = (120, 160)) -> tuple[np.ndarray, np.ndarray]:
    """Three discs on a soft background, and their boxes, xyxy in [0, 1]."""
    rng = np.random.default_rng(seed)
    height, width = size
    picture = np.full((height, width, 3), 90, np.uint8)
    boxes = []
    for x, y, r in ((35, 40, 18), (110, 35, 14), (90, 90, 22)):
        cv2.circle(picture, (x, y), r, tuple(int(v) for v in rng.integers(130, 255, 3)), -1)
        boxes.append([(x - r) / width, (y - r) / height, (x + r) / width, (y + r) / height])
    return cv2.GaussianBlur(picture, (0, 0), 0.8), np.array(boxes)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    inside = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    both = inside.clip(0).prod(2)
    area = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (area[0][:, None] + area[1][None] - both)


@pytest.mark.parametrize("strategy", ["selective_search", "objectness"])
def test_regions_lie_on_the_objects_and_are_the_same_each_time(strategy: str) -> None:
    picture, truth = scene()
    search = proposals.SEARCHED[strategy]
    found = search(picture)
    assert found.dtype == np.float32
    assert np.array_equal(found, search(picture))
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert (found[:, 2:] > found[:, :2]).all()
    best = overlaps(truth, found).max(1)
    assert (best > 0.7).all(), best


def test_the_set_is_that_of_the_library_on_the_squashed_picture() -> None:
    picture, _ = scene(1)
    theirs = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    theirs.setBaseImage(np.ascontiguousarray(small[..., ::-1]))
    theirs.switchToSelectiveSearchFast()
    rectangles = {tuple(each) for each in theirs.process().tolist()}
    ours = np.rint(selective_search(picture) * SIDE).astype(int)
    assert {(x, y, right - x, bottom - y) for x, y, right, bottom in ours.tolist()} == rectangles


@pytest.mark.parametrize("strategy", ["selective_search", "objectness"])
def test_an_empty_picture_has_no_regions_to_learn_from_or_itself(strategy: str) -> None:
    blank = np.full((40, 60, 3), 128, np.uint8)
    assert len(proposals.SEARCHED[strategy](blank)) <= 1


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides() -> None:
    picture, _ = scene(2)
    noise = np.random.default_rng(0).integers(0, 60, picture.shape, dtype=np.uint8)
    regions = selective_search(picture + noise)
    assert len(regions) > 15
    first = chosen("selective_search", regions, 10, 0, epoch=0, image_id=7)
    assert len(first) == 10
    assert np.array_equal(first, chosen("selective_search", regions, 10, 0, epoch=0, image_id=7))
    for other in (
        chosen("selective_search", regions, 10, 0, epoch=1, image_id=7),
        chosen("selective_search", regions, 10, 1, epoch=0, image_id=7),
        chosen("selective_search", regions, 10, 0, epoch=0, image_id=8),
    ):
        assert not np.array_equal(first, other)
    known = {tuple(each) for each in regions.tolist()}
    assert {tuple(each) for each in first.tolist()} <= known


def test_large_regions_come_early_as_they_do_in_the_library() -> None:
    rng = np.random.default_rng(0)
    sides = np.linspace(0.05, 0.9, 60)
    corner = rng.random((60, 2)) * (1 - sides[:, None])
    regions = np.concatenate([corner, corner + sides[:, None]], 1).astype(np.float32)
    areas = [
        np.prod(got[:, 2:] - got[:, :2], axis=1).mean()
        for epoch in range(20)
        for got in [chosen("selective_search", regions, 10, 0, epoch=epoch, image_id=1)]
    ]
    assert np.mean(areas) > 1.3 * (sides**2).mean()


def test_objectness_keeps_the_best_and_random_draws_anew() -> None:
    picture, _ = scene(3)
    regions = proposals.SEARCHED["objectness"](picture)
    assert np.array_equal(chosen("objectness", regions, 3, 0, epoch=4, image_id=1), regions[:3])
    a = chosen("random", None, 8, 0, epoch=0, image_id=1)
    b = chosen("random", None, 8, 0, epoch=1, image_id=1)
    assert a.shape == b.shape == (8, 4)
    assert not np.array_equal(a, b)
    assert (a >= 0).all()
    assert (a <= 1).all()
    assert (a[:, 2:] > a[:, :2]).all()
    assert set(STRATEGIES) == {"selective_search", "objectness", "random"}


def test_all_pictures_are_searched_once_in_parts_and_kept(tmp_path: Path) -> None:
    root = squares(tmp_path / "set", images=9)
    files = sorted(root.rglob("*.png"))
    images = []
    for number, file in enumerate(files, 1):
        height, width = read_rgb(file).shape[:2]
        images.append(Image(number, file, width, height, "train"))
    parts = [part_of(images, part, 2) for part in range(2)]
    assert sorted(i.id for part in parts for i in part) == [i.id for i in images]
    whole = {image.id: boxes for image, boxes in proposed(images, "selective_search", threads=2)}
    found = {}
    for part in parts:
        found |= {image.id: boxes for image, boxes in proposed(part, "selective_search", threads=1)}
    assert all(np.array_equal(whole[i], found[i]) for i in whole)
    save(tmp_path / "kept" / "found.safetensors", whole | {99: np.zeros((0, 4), np.float32)})
    again = load(tmp_path / "kept" / "found.safetensors")
    assert again.keys() == whole.keys() | {99}
    assert all(np.array_equal(again[i], whole[i]) for i in whole)
    assert len(again[99]) == 0


def test_a_key_follows_everything_that_regions_depend_on() -> None:
    key = key_of("a" * 64, "selective_search", 0, 2)
    others = {
        key_of("b" * 64, "selective_search", 0, 2),
        key_of("a" * 64, "objectness", 0, 2),
        key_of("a" * 64, "selective_search", 1, 2),
        key_of("a" * 64, "selective_search", 0, 3),
    }
    assert len(others | {key}) == 5


def test_a_broken_file_is_no_proposals(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(Unpretrainable) as refusal:
        load(path)
    assert refusal.value.code == "broken_proposals"
