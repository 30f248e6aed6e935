"""Small pictures of single characters or things, as the raw material of synthetic detection sets."""

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

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
    "letters": tuple("ABCDEFGHIJ"),
}


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


def from_idx(images: Path, labels: Path, names: tuple[str, ...] = ()) -> Glyphs:
    """Glyphs from a pair of idx files; without `names` the labels are the names.

    Raises ValueError when the two do not belong together or a label has no name.
    """
    pictures, numbers = read_idx(images), read_idx(labels).astype(np.int64)
    if pictures.ndim != 3 or numbers.ndim != 1 or len(pictures) != len(numbers) or not len(numbers):
        raise ValueError(
            f"{images.name} {pictures.shape} and {labels.name} {numbers.shape} do not belong together: (N, h, w) and (N,) are wanted"
        )
    names = names or tuple(str(label) for label in range(int(numbers.max()) + 1))
    if numbers.max() >= len(names):
        raise ValueError(f"{labels.name} has label {numbers.max()}, but only {len(names)} names were given")
    return Glyphs(pictures, numbers, names)


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


def load(source: str | Path, names: tuple[str, ...] = ()) -> Glyphs:
    """Glyphs by name (`digits`), or from a folder with one *-images-idx3-ubyte[.gz] and its labels.

    Raises ValueError when the folder holds no pair of idx files.
    """
    if source == "digits":
        return digits()
    folder = Path(source)
    for images in sorted(folder.glob("*images-idx3-ubyte*")):
        labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
        if labels.is_file():
            return from_idx(images, labels, names)
    raise ValueError(
        f"{folder} holds no pair like t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz; or give 'digits'"
    )
