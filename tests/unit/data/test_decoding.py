import threading
from pathlib import Path

import numpy as np
import pytest
from hand_made import coco, picture

from worker.data.batches import decoded
from worker.data.dataset import Image, open_dataset
from worker.data.ingest import ingest
from worker.data.lookahead import in_order
from worker.data.pictures import BadPicture, inspect, read_rgb


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 3), (4, 100)])
def test_in_order(count: int, threads: int, ahead: int) -> None:
    assert list(in_order(lambda value: value * value, range(count), threads=threads, ahead=ahead)) == [
        value**2 for value in range(count)
    ]


def test_look_ahead_is_bounded() -> None:
    started = 0
    lock = threading.Lock()

    def work(value: int) -> int:
        nonlocal started
        with lock:
            started += 1
        return value

    results = in_order(work, range(100), threads=4, ahead=5)
    for taken in range(1, 20):
        next(results)
        assert started <= taken + 5
    results.close()
    assert started < 100


def test_failure_comes_at_its_place() -> None:
    def work(value: int) -> int:
        if value == 3:
            raise OSError("three")
        return value

    results = in_order(work, range(10), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="three"):
        next(results)


@pytest.mark.parametrize(("threads", "ahead"), [(0, 1), (1, 0)])
def test_senseless_bounds(threads: int, ahead: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(in_order(abs, [1], threads=threads, ahead=ahead))


def test_decoded_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    ingest(tmp_path / "in", tmp_path / "out")
    images = open_dataset(tmp_path / "out").images
    found = list(decoded(images))
    assert [image for image, _ in found] == list(images)
    for image, pixels in found:
        assert pixels.dtype == np.uint8
        assert pixels.shape == (image.height, image.width, 3)
        assert np.array_equal(pixels, read_rgb(image.path))


def test_decoding_nothing() -> None:
    assert list(decoded([])) == []


def test_broken_picture_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(BadPicture, match=r"image 3, .*a\.png"):
        list(decoded([Image(3, tmp_path / "a.png", 8, 8, "train")]))


def test_changed_picture_is_noticed(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 8, 9)
    with pytest.raises(ValueError, match="8 x 9, the dataset says 8 x 8"):
        list(decoded([Image(3, tmp_path / "a.png", 8, 8, "train")]))


@pytest.mark.parametrize(
    ("suffix", "kept"),
    [
        (".jpg", True),
        (".png", True),
        (".webp", True),
        (".bmp", True),
        (".gif", False),
        (".tif", False),
        (".ppm", False),
    ],
)
def test_picture_formats(suffix: str, kept: bool, tmp_path: Path) -> None:
    found = inspect(picture(tmp_path / f"a{suffix}", 30, 20))
    assert (found.width, found.height, found.orientation) == (30, 20, 1)
    assert (found.rewrite is None) == kept
    assert found.suffix == (suffix if kept else ".png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    import PIL.Image

    PIL.Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(tmp_path / "a.png")
    assert inspect(tmp_path / "a.png").rewrite is None
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.full((4, 6, 3), 255, dtype=np.uint8))
