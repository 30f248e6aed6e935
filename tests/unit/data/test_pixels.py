"""Decoded pictures kept on disk: decoded once, the same for everybody, bounded, and never in the way."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from worker.data import batches
from worker.data.batches import decoded
from worker.data.dataset import Image
from worker.data.pictures import BadPicture
from worker.data.pixels import PixelCache

SIZES = ((7, 5), (16, 9), (3, 30), (8, 8), (1, 1))
BYTES = sum(3 * height * width for height, width in SIZES)


@pytest.fixture
def images(tmp_path) -> list[Image]:
    rng = np.random.default_rng(0)
    found = []
    for number, (height, width) in enumerate(SIZES, start=1):
        path = tmp_path / f"{number}.png"
        PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        found.append(Image(number, path, width, height, "train"))
    return found


@pytest.fixture
def cache(tmp_path) -> PixelCache:
    return PixelCache(tmp_path / "kept", 1 << 20)


@pytest.fixture
def decodes(monkeypatch) -> list[str]:
    """Names of the files that were decoded."""
    seen: list[str] = []
    real = batches.read_rgb

    def read(path: Path) -> np.ndarray:
        seen.append(path.name)
        return real(path)

    monkeypatch.setattr(batches, "read_rgb", read)
    return seen


def read(images, cache: PixelCache | None, digest: str = "d", threads: int = 2) -> dict[int, np.ndarray]:
    kept = None if cache is None else cache.of(digest)
    return {image.id: np.array(pixels) for image, pixels in decoded(images, threads=threads, kept=kept)}


def assert_equal(found, images):
    plain = read(images, None)
    assert found.keys() == plain.keys()
    assert all(np.array_equal(found[number], pixels) for number, pixels in plain.items())


def test_the_second_reader_decodes_nothing_in_any_order(images, cache, decodes):
    first = read(images, cache, threads=4)
    assert sorted(decodes) == [f"{number}.png" for number in range(1, 6)]
    decodes.clear()
    again = read(images[::-1], cache)
    assert decodes == []
    assert_equal(first, images)
    assert_equal(again, images)


def test_what_is_new_is_added_to_what_is_kept(images, cache, decodes):
    read(images[:2], cache)
    decodes.clear()
    assert_equal(read(images, cache), images)
    assert sorted(decodes) == sorted([*(f"{n}.png" for n in (3, 4, 5)), *(f"{n}.png" for n in range(1, 6))])
    decodes.clear()
    read(images, cache)
    assert decodes == []
    assert len(cache.files("d")) == 2


def test_another_dataset_does_not_see_them(images, cache, decodes):
    read(images, cache)
    decodes.clear()
    read(images, cache, digest="other")
    assert len(decodes) == 5


def test_a_picture_of_another_size_is_decoded_anew(images, cache, decodes):
    read(images, cache)
    taller = Image(1, images[1].path, images[1].width, images[1].height, "train")
    assert read([taller], cache)[1].shape == (16, 9, 3)


def test_what_was_decoded_before_an_error_stays(images, cache, decodes):
    images[4].path.write_bytes(b"broken")
    with pytest.raises(BadPicture):
        read(images, cache, threads=1)
    decodes.clear()
    assert len(read(images[:4], cache)) == 4
    assert decodes == []


def test_a_reader_that_stops_early_leaves_whole_pictures(images, cache, decodes):
    stream = decoded(images, threads=1, ahead=1, kept=cache.of("d"))
    next(stream)
    stream.close()
    decodes.clear()
    assert_equal(read(images, cache), images)
    assert decodes.count("1.png") == 1  # by the plain reading alone


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-4] + b"????",
        lambda data: bytes(len(data)),
        lambda data: data[:-25] + bytes([255]) * 9 + data[-16:],
    ],
)
def test_a_damaged_file_is_as_good_as_none(images, cache, damage):
    read(images, cache)
    ((_, _, path),) = cache.files("d")
    path.write_bytes(damage(path.read_bytes()))
    assert_equal(read(images, cache), images)


def test_damaged_pixels_are_noticed(images, cache, decodes):
    read(images, cache)
    ((_, _, path),) = cache.files("d")
    data = bytearray(path.read_bytes())
    data[:BYTES] = bytes(BYTES)
    path.write_bytes(data)
    decodes.clear()
    assert_equal(read(images, cache), images)
    assert len(decodes) == 10


def test_the_bound_is_kept_and_what_was_used_longest_ago_goes(images, tmp_path, decodes):
    probe = PixelCache(tmp_path / "probe", 1 << 20)
    read(images, probe)
    size = probe.files()[0][1]
    cache = PixelCache(tmp_path / "kept", 2 * size + size // 2)
    for age, digest in enumerate(("old", "older", "new")):
        read(images, cache, digest=digest)
        for _, _, path in cache.files(digest):
            os.utime(path, (time.time() - (30 if digest == "older" else 20 if digest == "old" else 0),) * 2)
        assert sum(bytes_ for _, bytes_, _ in cache.files()) <= cache.max_bytes, age
    assert {path.parent.name for _, _, path in cache.files()} <= {"old", "new", "older"}
    assert len(cache.files()) == 2
    assert not list(cache.folder.glob("*/.writing-*"))


def test_a_dataset_above_the_bound_keeps_a_part_and_does_not_push_itself_out(images, tmp_path, decodes):
    cache = PixelCache(tmp_path / "kept", 3 * (7 * 5 + 16 * 9) + 400)
    for _ in range(3):
        decodes.clear()
        found = read(images, cache, threads=1)
    kept = 5 - len(decodes)
    assert kept >= 2
    assert_equal(found, images)
    assert sum(size for _, size, _ in cache.files()) <= cache.max_bytes


def test_nothing_is_kept_with_no_bytes_to_keep_it_in(images, tmp_path):
    cache = PixelCache(tmp_path / "kept", 0)
    assert_equal(read(images, cache), images)
    assert cache.files() == []


def test_a_folder_that_cannot_be_written_stops_nobody(images, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder should be")
    assert_equal(read(images, PixelCache(tmp_path / "kept", 1 << 20)), images)


def test_a_full_disk_stops_nobody(images, cache, monkeypatch):
    class Full:
        def __init__(self, descriptor, mode):
            os.close(descriptor)

        def tell(self):
            return 0

        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr("worker.data.pixels.os.fdopen", Full)
    assert_equal(read(images, cache), images)
    assert list(cache.folder.glob("*/*")) == []


def test_a_file_that_goes_while_it_is_read_is_decoded_again(images, cache, decodes):
    read(images, cache)
    kept = cache.of("d")
    with kept:
        for _, _, path in cache.files("d"):
            path.unlink()
        assert kept.get(1, *SIZES[0]) is None


def test_abandoned_files_go(images, cache):
    read(images, cache)
    left = cache.folder / "d" / ".writing-left"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 7200,) * 2)
    read(images[:1], cache, digest="other")
    assert not left.exists()


def _reader(images, cache, barrier, results) -> None:
    barrier.wait()
    for _ in range(5):
        for _, pixels in decoded(images, kept=cache.of("d")):
            results.put(int(pixels.sum()))


def test_processes_share_a_folder(images, cache):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    readers = [context.Process(target=_reader, args=(images, cache, barrier, results)) for _ in range(3)]
    for reader in readers:
        reader.start()
    found = sorted(results.get(timeout=60) for _ in range(3 * 5 * len(images)))
    for reader in readers:
        reader.join(timeout=60)
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert found == sorted(int(pixels.sum()) for pixels in read(images, None).values() for _ in range(15))
