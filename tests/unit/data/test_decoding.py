import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
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


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_sensors_of_fewer_bits_than_the_file_are_not_black(bits: int, white: int, tmp_path: Path) -> None:
    bright = np.linspace(0, white, 300).reshape(15, 20).astype(np.uint16)
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(bright).save(tmp_path / "in/a.png")
    PIL.Image.fromarray(bright // 2).save(tmp_path / "in/b.png")
    result = ingest(tmp_path / "in", tmp_path / "out")
    means = sorted(float(read_rgb(image.path).mean()) for image in open_dataset(tmp_path / "out").images)
    assert means == pytest.approx([63.5, 127.5], abs=1)
    assert f"{white} is white" in result.report["faults"][0]["reason"]


def _png_of_16_bits(pixels: np.ndarray) -> bytes:
    """RGB, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("white", "said"), [(4095, {"converted_image": 1}), (65535, {})])
def test_colour_of_fewer_bits_than_the_file_is_not_black(white: int, said: dict, tmp_path: Path) -> None:
    pixels = np.linspace(0, white, 300).reshape(10, 10, 3).astype(np.uint16)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(_png_of_16_bits(pixels))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == said
    assert read_rgb(open_dataset(tmp_path / "out").images[0].path).mean() == pytest.approx(127, abs=10)
