"""What a reader hands over: the annotations as they stand in the archive, in one shape for all formats."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from worker.data.faults import Report, printable
from worker.data.tree import Tree

Corners = tuple[float, float, float, float]
MAX_TEXT_BYTES = 2 * 1024**3


@dataclass(slots=True)
class RawBox:
    """One object: `corners` xyxy in the frame that the file means, `reference` its id or line in `file`."""

    category: str
    corners: Corners
    file: str
    reference: str
    crowd: bool = False
    segmentation: list[list[float]] | dict | None = None


@dataclass(slots=True)
class RawImage:
    """One picture of the tree at `path`, with its objects or image-level `labels`.

    `declared` is the (width, height) that the annotations were made for, where the file says it;
    `relative` means that the corners are fractions of the picture as it is shown.
    """

    path: str
    split: str | None = None
    boxes: list[RawBox] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    declared: tuple[int, int] | None = None
    relative: bool = False


@dataclass
class Raw:
    """All a reader found. `categories` in the archive's own order; empty means: those in use, by name."""

    images: list[RawImage]
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
    """A category name as it is stored: printable, stripped, at most 200 characters; empty when there is none."""
    return printable(value, 200).strip() if isinstance(value, str | int | float) else ""


def pixel_size(width: object, height: object) -> tuple[int, int] | None:
    """A declared picture size, or None when it is absent or senseless (tools write 0 x 0)."""
    size = numbers((width, height))
    return (int(size[0]), int(size[1])) if size and min(size) >= 1 else None


def text_of(tree: Tree, file: str, report: Report | None = None) -> str | None:
    """The text of one file of the tree, UTF-8 with or without mark, else Latin-1.

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
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def head_of(tree: Tree, file: str, size: int = 4096) -> str:
    """The first bytes of a file as text, for recognising it; empty when it cannot be read."""
    try:
        with tree.absolute(file).open("rb") as stream:
            return stream.read(size).decode("utf-8-sig", "replace")
    except OSError:
        return ""
