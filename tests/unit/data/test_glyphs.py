"""Small pictures read from what datasets of digits and letters come in."""

import gzip
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from worker.data.glyphs import digits, load, read_idx


def test_scikit_learn_digits() -> None:
    found = digits()
    assert found.images.shape == (1797, 28, 28)
    assert (found.images.dtype, found.labels.dtype) == (np.uint8, np.int64)
    assert found.images.max() == 255
    assert not found.images[:, 0].any()
    assert found.names == tuple("0123456789")
    assert np.bincount(found.labels).min() > 170


def _idx(path: Path, array: np.ndarray, header: bytes | None = None) -> Path:
    data = (header or struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_round_trip(suffix: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    _idx(tmp_path / f"t-images-idx3-ubyte{suffix}", images)
    _idx(tmp_path / f"t-labels-idx1-ubyte{suffix}", np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8))
    found = load(tmp_path)
    assert np.array_equal(found.images, images)
    assert found.names == ("0", "1", "2")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"\0\0\x0d\x01\0\0\0\x01x",
        b"\0\0\x08\x03\0\0",
        b"\0\0\x08\x01\0\0\0\x05abcd",
        b"\0\0\x08\x01\0\0\0\x03abcd",
        b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xffx",
        b"PK\3\4",
    ],
)
def test_broken_idx(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match="x "):
        read_idx(tmp_path / "x")
    (tmp_path / "x.gz").write_bytes(gzip.compress(data)[:-9])
    with pytest.raises(ValueError, match=r"x\.gz "):
        read_idx(tmp_path / "x.gz")


def _pair(folder: Path, name: str, images: np.ndarray, labels: list[int]) -> None:
    _idx(folder / name.format("images-idx3"), images)
    _idx(folder / name.format("labels-idx1"), np.array(labels, dtype=np.uint8))


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    images = np.zeros((3, 2, 2), dtype=np.uint8)
    _pair(tmp_path, "a-{}-ubyte", images, [0, 1, 2, 0])
    with pytest.raises(ValueError, match="belong together"):
        load(tmp_path)
    _pair(tmp_path, "a-{}-ubyte", images, [0, 1, 2])
    with pytest.raises(ValueError, match="only 1 names"):
        load(tmp_path, ("a",))
    (tmp_path / "a-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="has no a-labels"):
        load(tmp_path)
    with pytest.raises(ValueError, match="'digits'"):
        load(tmp_path / "nowhere")


def test_training_and_test_pictures_come_together(tmp_path: Path) -> None:
    folder = tmp_path / "Fashion-MNIST"
    folder.mkdir()
    _pair(folder, "train-{}-ubyte", np.full((3, 2, 2), 1, dtype=np.uint8), [0, 1, 2])
    _pair(folder, "t10k-{}-ubyte.gz", np.full((2, 2, 2), 2, dtype=np.uint8), [3, 4])
    _pair(folder, "t10k-{}-ubyte", np.full((2, 2, 2), 2, dtype=np.uint8), [3, 4])  # packed and unpacked
    found = load(folder)
    assert sorted(zip(found.images[:, 0, 0].tolist(), found.labels.tolist(), strict=True)) == [
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 3),
        (2, 4),
    ]
    assert found.names[:2] == ("T-shirt", "trouser")


def test_emnist_stands_upright_with_its_own_names(tmp_path: Path) -> None:
    lying = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for kind, labels in (("letters", [1, 26]), ("balanced", [0, 36])):
        _pair(tmp_path, f"emnist-{kind}-train-{{}}-ubyte", lying, labels)
        _pair(tmp_path, f"emnist-{kind}-test-{{}}-ubyte", lying, labels)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n26 90 122\n")
    with pytest.raises(ValueError, match=r"several sets \(emnist-balanced"):
        load(tmp_path)
    letters = load(tmp_path / "emnist-letters")
    assert np.array_equal(letters.images[0], lying[0].T)
    assert (letters.names, letters.labels.tolist()) == (("A", "Z"), [0, 1, 0, 1])
    balanced = load(tmp_path / "emnist-balanced")
    assert balanced.names[36] == "36"


def _hdf5(path: Path, **groups: tuple[np.ndarray, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, (data, target) in groups.items():
            file[f"{name}/data"], file[f"{name}/target"] = data, target
    return path


def test_hdf5_as_usps_comes(tmp_path: Path) -> None:
    data = np.zeros((2, 9), dtype=np.float32)
    data[1, 1] = 0.5
    _hdf5(tmp_path / "usps.h5", train=(data, np.array([1, 0])), test=(data[:1], np.array([2])))
    found = load(tmp_path)
    assert found.images.shape == (3, 3, 3)
    assert found.images.max() == 128
    assert sorted(found.labels.tolist()) == [0, 1, 2]
    assert found.names == ("0", "1", "2")


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"train": (np.zeros((2, 8)), np.zeros(2, dtype=int))},
        {"train": (np.zeros((2, 9)), np.zeros(3, dtype=int))},
        {"train": (np.full((2, 9), 2.0), np.zeros(2, dtype=int))},
        {"train": (np.full((2, 9), np.nan), np.zeros(2, dtype=int))},
        {"train": (np.zeros((2, 3, 3)), np.zeros(2, dtype=int))},
    ],
)
def test_other_hdf5_is_refused(groups: dict, tmp_path: Path) -> None:
    _hdf5(tmp_path / "x.h5", **groups)
    with pytest.raises(ValueError, match=r"x\.h5"):
        load(tmp_path)


def test_what_only_looks_like_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"x\.h5"):
        load(tmp_path)
    (tmp_path / "x.h5").unlink()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"x\.h5"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("source", "count"), [("mnist", 10_000), ("fashion_mnist", 10_000), ("notmnist", 10_000)]
)
def test_real_idx_files(source: str, count: int, shared_data: Path) -> None:
    found = load(shared_data / "digits" / source)
    assert found.images.shape == (count, 28, 28)
    assert set(found.labels.tolist()) == set(range(10))
    assert found.names[9] == {"mnist": "9", "fashion_mnist": "ankle boot", "notmnist": "J"}[source]


def test_real_usps(shared_data: Path) -> None:
    found = load(shared_data / "digits" / "usps")
    assert found.images.shape == (9298, 16, 16)
    assert np.bincount(found.labels).min() == 708
    assert found.images[found.labels == 0].mean() > found.images[found.labels == 1].mean()
