from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from worker.data.canonical import Annotation, CanonicalImage
from worker.data.drawing import colour_of
from worker.data.pictures import Picture
from worker.data.previews import annotated, chosen


def _image(name: str, *categories: str) -> CanonicalImage:
    return CanonicalImage(
        name,
        Picture("0", 9, 9, (9, 9), 1, ".png", None),
        "train",
        [Annotation(c, (0, 0, 5, 5)) for c in categories],
    )


def test_nothing_to_choose_from() -> None:
    assert chosen([], seed=0, count=8) == []


def test_choice_shows_every_class_it_can() -> None:
    images = [_image(f"empty{index}") for index in range(20)] + [
        _image("a", "x"),
        _image("b", "y"),
        _image("c", "x", "z"),
    ]
    shown = {row.category for image in chosen(images, seed=5, count=3) for row in image.annotations}
    assert shown == {"x", "y", "z"}


@pytest.mark.parametrize("name", ["", "cat", "日本語", "x" * 300])
@pytest.mark.parametrize("corners", [(0, 0, 1, 1), (10, 8, 30, 20), (0, 0, 40, 30)])
def test_box_is_drawn_where_it_is(name: str, corners: tuple, tmp_path: Path) -> None:
    canvas = annotated(PIL.Image.new("RGB", (40, 30)), [Annotation(name, corners)], [name], side=400)
    assert canvas.size == (400, 300)
    rows, columns = np.nonzero(np.asarray(canvas).any(axis=2))
    x1, y1, x2, y2 = (value * 10 for value in corners)
    pixels = np.asarray(canvas)
    assert pixels[y2 - 1, x2 - 1].any()
    assert pixels[y2 - 1, x1].any()
    assert rows.max() < max(y2, y1 + 30)
    if (x2 - x1) > 100:
        inside = pixels[(y1 + y2) // 2, (x1 + x2) // 2]
        assert not inside.any()
    assert len(columns)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2000, 1000)])
def test_any_shape_can_be_shown(size: tuple[int, int]) -> None:
    assert max(annotated(PIL.Image.new("RGB", size), [], [], side=100).size) == 100


def test_labels_of_one_place_stand_below_each_other() -> None:
    names = ["cat", "dog", "cow"]
    whole = [Annotation(name, (0, 0, 400, 300)) for name in names]
    canvas = np.asarray(annotated(PIL.Image.new("RGB", (400, 300)), whole, names, side=400))
    inside = canvas[6:60, 4:30].reshape(-1, 3)
    for index in range(3):
        assert (inside == colour_of(index)).all(axis=1).any(), f"the label of {names[index]} is hidden"
