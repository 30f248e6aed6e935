"""EXIF orientation: the picture and its boxes end up in one upright frame, whatever frame the boxes were drawn in."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hand_made import text
from hypothesis import given
from hypothesis import strategies as st

from worker.data.batches import decoded
from worker.data.dataset import open_dataset
from worker.data.ingest import ingest
from worker.data.pictures import turn

STORED = (48, 32)
BOX = (8, 4, 24, 12)  # xyxy of a white block in the stored frame


def _rotated(path: Path, orientation: int) -> None:
    pixels = np.zeros((STORED[1], STORED[0], 3), dtype=np.uint8)
    x1, y1, x2, y2 = BOX
    pixels[y1:y2, x1:x2] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True)
    PIL.Image.fromarray(pixels).save(path, exif=exif)


def _ingested(
    tmp_path: Path, orientation: int, size: tuple[int, int], box: tuple
) -> tuple[dict, np.ndarray, np.ndarray]:
    _rotated(tmp_path / "in/a.png", orientation)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            }
        ],
        "categories": [{"id": 1, "name": "block"}],
    }
    text(tmp_path / "in/all.json", json.dumps(content))
    report = ingest(tmp_path / "in", tmp_path / "out").report
    dataset = open_dataset(tmp_path / "out")
    ((image, pixels),) = decoded(dataset.images)
    assert (image.height, image.width) == pixels.shape[:2]
    with PIL.Image.open(image.path) as stored:
        assert stored.getexif().get(0x0112, 1) == 1
    return report, dataset.boxes[0], pixels


def _block(pixels: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(pixels[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_stored_frame_are_turned(orientation: int, tmp_path: Path) -> None:
    report, box, pixels = _ingested(tmp_path, orientation, STORED, BOX)
    assert report["counts"] == {"exif_rotation": 1}
    assert report["repaired"] == 1
    assert pixels.shape == (48, 32, 3)
    assert box.tolist() == _block(pixels)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_boxes_of_the_upright_frame_stay(orientation: int, tmp_path: Path) -> None:
    size = STORED if orientation < 5 else STORED[::-1]
    corners = [turn(*BOX[:2], orientation, STORED), turn(*BOX[2:], orientation, STORED)]
    xs, ys = zip(*corners, strict=True)
    report, box, pixels = _ingested(tmp_path, orientation, size, (min(xs), min(ys), max(xs), max(ys)))
    assert report["counts"] == {"exif_rotation": 1}
    assert box.tolist() == _block(pixels)


@pytest.mark.parametrize("orientation", [1, 0, 9])
def test_no_orientation_changes_nothing(orientation: int, tmp_path: Path) -> None:
    report, box, pixels = (
        _ingested(tmp_path, orientation, STORED, BOX) if orientation == 1 else (None, None, None)
    )
    if orientation == 1:
        assert report["counts"] == {}
        assert box.tolist() == _block(pixels)
    assert turn(3, 4, orientation, STORED) == (3, 4)


@given(orientation=st.integers(1, 8), x=st.integers(0, 47), y=st.integers(0, 31))
def test_turn_agrees_with_the_picture_library(orientation: int, x: int, y: int) -> None:
    pixels = np.zeros((STORED[1], STORED[0]), dtype=np.uint8)
    pixels[y, x] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture = PIL.Image.fromarray(pixels)
    picture.getexif()[0x0112] = orientation
    rows, columns = np.nonzero(np.asarray(PIL.ImageOps.exif_transpose(picture)))
    centre = turn(x + 0.5, y + 0.5, orientation, STORED)
    assert centre == (columns[0] + 0.5, rows[0] + 0.5)
