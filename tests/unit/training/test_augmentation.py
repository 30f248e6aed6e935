import numpy as np
import pytest
import torch

from worker.data.dataset import Image
from worker.data.masks import encode
from worker.training.augment import LEAST_VISIBLE, augmented
from worker.training.examples import Example
from worker.training.recipe import Augmentation

GREY = 90


def scene(seed: int, with_masks: bool) -> tuple[np.ndarray, Example]:
    """Filled ellipses of one colour each on grey, so that a box can be found again in the picture."""
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(60, 120)), int(rng.integers(60, 120))
    pixels = np.full((height, width, 3), GREY, np.uint8)
    y, x = np.mgrid[:height, :width]
    boxes, masks, taken = [], [], np.zeros((height, width), bool)
    for _ in range(3):
        rx, ry = rng.integers(6, 14, 2)
        cx, cy = rng.integers(15, width - 15), rng.integers(15, height - 15)
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
        if (inside & taken).any():
            continue
        taken |= inside
        pixels[inside] = (200 + len(boxes), 10, 10)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        masks.append(inside)
    labels = np.arange(len(boxes), dtype=np.int64)
    image = Image(1, None, width, height, "train")
    rles = tuple(encode(np.stack(masks))) if with_masks else None
    return pixels, Example(image, np.array(boxes, np.float32), labels, rles)


def tight(pixels: np.ndarray, number: int) -> list[int]:
    found = pixels[..., 0] == 200 + number
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("seed", range(25))
def test_boxes_and_masks_stay_on_their_objects(seed: int) -> None:
    pixels, example = scene(seed, with_masks=True)
    before = pixels.copy()
    wanted = Augmentation(flip=0.5, crop=0.7, crop_least=0.5)
    out, target = augmented(pixels, example, wanted, np.random.default_rng(seed))
    assert np.array_equal(pixels, before)  # the kept picture serves the next epoch too
    assert len(target["labels"]) >= 1  # a crop keeps an object
    assert target["masks"].shape == (len(target["labels"]), *out.shape[:2])
    for box, label, mask in zip(
        target["boxes"].tolist(), target["labels"].tolist(), target["masks"].numpy(), strict=True
    ):
        found = tight(out, label)
        # Where a crop cuts an ellipse, its box may be cut wider than what is left of it.
        assert np.array_equal(mask.astype(bool), out[..., 0] == 200 + label)
        assert box[0] <= found[0]
        assert box[1] <= found[1]
        assert box[2] >= found[2]
        assert box[3] >= found[3]
        whole = example.boxes[label]
        area = (box[2] - box[0]) * (box[3] - box[1])
        assert area >= LEAST_VISIBLE * (whole[2] - whole[0]) * (whole[3] - whole[1]) - 1e-3
        assert 0 <= box[0] < box[2] <= out.shape[1]
        assert 0 <= box[1] < box[3] <= out.shape[0]


def test_a_mirror_is_exact_and_nothing_asked_is_nothing_done() -> None:
    pixels, example = scene(1, with_masks=False)
    out, target = augmented(pixels, example, Augmentation(), np.random.default_rng(0))
    assert np.array_equal(out, pixels)
    assert np.array_equal(target["boxes"].numpy(), example.boxes)
    assert "masks" not in target
    out, target = augmented(pixels, example, Augmentation(flip=1.0), np.random.default_rng(0))
    assert np.array_equal(out, pixels[:, ::-1])
    assert [tight(out, i) for i in range(len(example.labels))] == target["boxes"].tolist()


def test_colours_change_pixels_only() -> None:
    pixels, example = scene(2, with_masks=False)
    out, target = augmented(pixels, example, Augmentation(colour=0.4), np.random.default_rng(0))
    assert out.shape == pixels.shape
    assert out.dtype == np.uint8
    assert not np.array_equal(out, pixels)
    assert np.array_equal(target["boxes"].numpy(), example.boxes)


def test_an_image_without_objects_may_be_cropped() -> None:
    pixels, example = scene(3, with_masks=True)
    empty = Example(example.image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), ())
    out, target = augmented(pixels, empty, Augmentation(flip=1.0, crop=1.0), np.random.default_rng(0))
    assert out.shape[0] * out.shape[1] < pixels.shape[0] * pixels.shape[1]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, *out.shape[:2])


@pytest.mark.usefixtures("global_random")
def test_the_same_place_gives_the_same_picture() -> None:
    pixels, example = scene(4, with_masks=False)
    wanted = Augmentation(flip=0.5, crop=0.5, colour=0.3)
    first, again, other = (augmented(pixels, example, wanted, np.random.default_rng(s)) for s in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])
