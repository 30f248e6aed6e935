"""What a reader hands over: the annotations as they stand in the archive, in one shape for all formats."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from worker.data.encodings import decode
from worker.data.faults import Report, printable
from worker.data.tree import Tree

Corners = tuple[float, float, float, float]
_WITHOUT_WIDTH = re.compile("[\u200b-\u200d\u2060\ufeff]")
MAX_TEXT_BYTES = 2 * 1024**3


@dataclass(slots=True)
class RawBox:
    """One object: `corners` xyxy in the frame that the file means, `reference` its id or line in `file`.

    `crowd` is a region of several objects (COCO's iscrowd); `ignore` is one object that counts neither for nor against a
    detector (VOC's difficult, the `ignore` of COCO's relatives).
    """

    category: str
    corners: Corners
    file: str
    reference: str
    crowd: bool = False
    segmentation: list[list[float]] | dict | None = None
    ignore: bool = False


@dataclass(slots=True)
class RawImage:
    """One picture of the tree at `path` that has an answer: its objects or image-level `labels`, or that it has none.

    `declared` is the (width, height) that the annotations were made for, where the file says it;
    `relative` means that the corners are fractions of the picture as it is shown. `dropped` counts the annotations that the
    reader could not use: a picture that has none left is left out, for it is no background.
    """

    path: str
    split: str | None = None
    boxes: list[RawBox] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    declared: tuple[int, int] | None = None
    relative: bool = False
    dropped: int = 0


@dataclass
class Raw:
    """All a reader found.

    `images` are the pictures with an answer; those of the tree that are missing here count as unlabelled. `used` names every
    file that was read, or left aside for a reason that the report says: ledger.py names the others in the report and refuses
    where most labels are among them. `categories` in the archive's own order; empty means: those in use, by name.
    """

    images: list[RawImage]
    used: Collection[str]
    categories: list[str] = field(default_factory=list)
    supervision: Literal["boxes", "image_labels", "none"] = "boxes"
    notes: list[str] = field(default_factory=list)


def numbers(values: Iterable[object]) -> list[float] | None:
    """The values as finite floats, or None when one of them is not a number."""
    try:
        result = [float(value) for value in values]  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return result if all(math.isfinite(value) for value in result) else None


def category_name(value: object) -> str:
    """A category name as it is stored: printable, NFC, with single blanks, at most 200 characters; empty when there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = str(value)
    if not text.isascii():
        # Decomposed letters and marks of no width look the same as the class without them.
        text = _WITHOUT_WIDTH.sub("", unicodedata.normalize("NFC", text))
    return printable(" ".join(text.split()), 200)


_MARKS = ("difficult", "ignore")


def is_set_aside(*marks: Mapping[str, object]) -> bool:
    """Whether one of the mappings marks an object as `difficult` or to `ignore`: it counts neither for nor against a detector."""
    return any(str(each.get(name)).strip().lower() in ("1", "true") for each in marks for name in _MARKS)


def pixel_size(width: object, height: object) -> tuple[int, int] | None:
    """A declared picture size, or None when it is absent or senseless (tools write 0 x 0)."""
    size = numbers((width, height))
    return (int(size[0]), int(size[1])) if size and min(size) >= 1 else None


def text_of(tree: Tree, file: str, report: Report | None = None) -> str | None:
    """The text of one file of the tree, in whatever encoding it is (encodings.py).

    None (and a fault, where a report is given) when it is too large or cannot be read.
    """
    path = tree.absolute(file)
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise OSError(f"larger than {MAX_TEXT_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        if report is not None:
            report.add("unreadable_file", file, f"cannot be read: {error.strerror or error}")
        return None
    return decode(data)


def head_of(tree: Tree, file: str, size: int = 4096) -> str:
    """The first bytes of a file as text, for recognising it; empty when it cannot be read."""
    try:
        with tree.absolute(file).open("rb") as stream:
            return decode(stream.read(size))
    except OSError:
        return ""
