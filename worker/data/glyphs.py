"""Small pictures of single characters or things, as the raw material of synthetic detection sets."""

import gzip
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import PIL.Image
from sklearn.datasets import load_digits

_MAX_BYTES = 1 << 30
_UNSIGNED_BYTES = 0x08
_FASHION = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
NAMES: dict[str, tuple[str, ...]] = {
    "digits": tuple("0123456789"),
    "fashion": _FASHION,
    "notmnist": tuple("ABCDEFGHIJ"),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
_HALF = re.compile(r"train|test|t10k")


@dataclass(frozen=True, eq=False)
class Glyphs:
    """`images` uint8 (N, side, side), bright on black; `labels` int64 (N,) from 0, indices into `names`."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file of unsigned bytes, gzip-packed or not (yann.lecun.com/exdb/mnist, 'file formats').

    Raises ValueError when header and length disagree, or the array is larger than 1 GiB.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path.name} is no whole gzip file: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTES:
        raise ValueError(
            f"{path.name} is no idx file of unsigned bytes: it begins with {data[:4].hex() or 'nothing'}, wanted 000008.."
        )
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path.name} ends inside its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if math.prod(shape) != len(data) - start:
        raise ValueError(
            f"{path.name} announces {shape} bytes and holds {len(data) - start}{' or more' if len(data) > _MAX_BYTES else ''}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def digits(side: int = 28) -> Glyphs:
    """The 1,797 handwritten digits of scikit-learn (UCI optdigits, 8 x 8), enlarged to side x side.

    They fill their 8 x 8 fields to the edge; a margin of an eighth, as MNIST has it, lets them turn without being cut.
    """
    found = load_digits()
    small = np.round(found.images * (255 / 16)).astype(np.uint8)
    margin = side // 8
    inner = (side - 2 * margin, side - 2 * margin)
    large = [
        np.asarray(PIL.Image.fromarray(glyph).resize(inner, PIL.Image.Resampling.BICUBIC)) for glyph in small
    ]
    images = np.pad(np.stack(large), ((0, 0), (margin, margin), (margin, margin)))
    return Glyphs(images, found.target.astype(np.int64), NAMES["digits"])


def from_hdf5(file: Path, names: tuple[str, ...] = ()) -> Glyphs:
    """Glyphs from HDF5 as USPS comes: groups (`train`, `test`) with `data`, floats in [0, 1] (N, side * side), and `target` (N,).

    All groups one after another. Raises ValueError for anything else.
    """
    pictures, numbers = [], []
    try:
        with h5py.File(file, "r") as content:
            for group in content:
                if not isinstance(content[group], h5py.Group):
                    raise TypeError(f"{group!r} is no group")
                data, target = content[group]["data"], content[group]["target"]
                if data.ndim != 2 or data.nbytes > _MAX_BYTES or target.shape != data.shape[:1]:
                    raise ValueError(
                        f"{file.name}: data {data.shape} and target {target.shape} of {group!r} do not fit"
                    )
                pictures.append(np.asarray(data, dtype=np.float64))
                numbers.append(np.asarray(target, dtype=np.int64))
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{file.name} has no groups with data and target: {error}") from error
    flat = np.concatenate(pictures) if pictures else np.zeros((0, 0))
    side = math.isqrt(flat.shape[1])
    if not len(flat) or side * side != flat.shape[1] or not (flat.min() >= 0 and flat.max() <= 1):
        raise ValueError(f"{file.name}: square pictures with values in [0, 1] are wanted, found {flat.shape}")
    images = np.round(flat * 255).astype(np.uint8).reshape(-1, side, side)
    return _named(images, np.concatenate(numbers), names, file.name)


def load(source: str | Path, names: tuple[str, ...] = ()) -> Glyphs:
    """Glyphs by name (`digits`), from a folder, or from the files in one that begin alike (`folder/emnist-letters`).

    A folder holds idx pairs as of MNIST, `*-images-idx3-ubyte[.gz]` and their labels, its training and test pictures
    together, or one HDF5 file as of USPS. Without `names` they are those of EMNIST's mapping file beside them, of
    Fashion-MNIST, KMNIST or notMNIST by the folder's or files' name, else the labels. Raises ValueError when there is
    nothing of the kind, or more than one kind.
    """
    if source == "digits":
        return digits()
    folder, begin = (Path(source), "") if Path(source).is_dir() else (Path(source).parent, Path(source).name)
    # A folder may hold a file packed and unpacked.
    found = {path.name.removesuffix(".gz"): path for path in sorted(folder.glob(f"{begin}*images[-.]idx3*"))}
    kinds = {_HALF.sub("", name, count=1) for name in found}
    if len(kinds) > 1:
        raise ValueError(
            f"{folder} holds several sets ({', '.join(sorted(found))}): name one by how its files begin"
        )
    if found:
        return _pairs(list(found.values()), names)
    files = sorted(folder.glob(f"{begin}*.h5")) + sorted(folder.glob(f"{begin}*.hdf5"))
    if len(files) == 1:
        return from_hdf5(files[0], names)
    raise ValueError(
        f"{source} holds no pair like t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz and no single .h5; or give 'digits'"
    )


def _pairs(files: list[Path], names: tuple[str, ...]) -> Glyphs:
    """The pairs' glyphs together. EMNIST's pictures lie on their side and count some labels from 1."""
    pictures, numbers = [], []
    for file in files:
        beside = file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1"))
        if not beside.is_file():
            raise ValueError(f"{file} has no {beside.name} beside it")
        found, given = read_idx(file), read_idx(beside).astype(np.int64)
        _check_pair(file, found, beside, given)
        pictures.append(found)
        numbers.append(given)
    images, labels = np.concatenate(pictures), np.concatenate(numbers)
    first = files[0]
    if not first.name.startswith("emnist"):
        return _named(images, labels, names or _names_of(first), first.name)
    mapping = first.with_name(f"{_HALF.split(first.name)[0].rstrip('-')}-mapping.txt")
    if mapping.is_file() and not names:
        rows = (line.split() for line in mapping.read_text(encoding="utf-8").splitlines() if line.strip())
        signs = {int(row[0]): chr(int(row[1])) for row in rows}
        used, labels = np.unique(labels, return_inverse=True)
        names = tuple(signs.get(int(label), str(label)) for label in used)
    return _named(images.transpose(0, 2, 1), labels, names, first.name)


def _names_of(file: Path) -> tuple[str, ...]:
    where = f"{file.parent.name}/{file.name}".lower()
    return next((names for word, names in NAMES.items() if word in where), ())


def _check_pair(images: Path, pictures: np.ndarray, labels: Path, numbers: np.ndarray) -> None:
    if pictures.ndim != 3 or numbers.ndim != 1 or len(pictures) != len(numbers) or not len(numbers):
        raise ValueError(
            f"{images.name} {pictures.shape} and {labels.name} {numbers.shape} do not belong together: (N, h, w) and (N,) are wanted"
        )


def _named(images: np.ndarray, labels: np.ndarray, names: tuple[str, ...], file: str) -> Glyphs:
    names = names or tuple(str(label) for label in range(int(labels.max()) + 1))
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(
            f"{file} has labels from {labels.min()} to {labels.max()}, but only {len(names)} names were given"
        )
    return Glyphs(np.ascontiguousarray(images), labels, names)
